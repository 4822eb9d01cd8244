package ortx_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ortx"
	"ortx/internal/digitset"
)

const model = "../../models/digits.onnx"

// failsWith checks an error's code, and that its text has all these words.
func failsWith(t *testing.T, err error, code ortx.Code, words ...string) {
	t.Helper()
	var e *ortx.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("wanted %v, got %v", code, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in %q", w, err)
		}
	}
}

func TestErrorsAreGoErrors(t *testing.T) {
	_, err := ortx.Open("no such file.onnx", nil)
	failsWith(t, err, ortx.NotFound, "no such file.onnx")
	_, err = ortx.OpenBytes([]byte("<!doctype html>"), nil)
	failsWith(t, err, ortx.InvalidModel, "web page")
	_, err = ortx.Open(model, &ortx.Options{Settings: map[string]string{"colour": "red"}})
	failsWith(t, err, ortx.InvalidArgument, "colour")
	_, err = ortx.Open(model, &ortx.Options{Threads: -1})
	failsWith(t, err, ortx.InvalidArgument, "-1")
	_, err = ortx.NewTensor([]int64{3}, []float32{1, 2})
	failsWith(t, err, ortx.InvalidArgument, "12 bytes")

	session, err := ortx.Open(model, &ortx.Options{Threads: 1, Settings: map[string]string{"load": "read"}})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	_, err = session.Run(context.Background())
	failsWith(t, err, ortx.InvalidArgument, "image")
	_, err = session.Run(context.Background(), nil)
	failsWith(t, err, ortx.InvalidArgument, "NULL")
	wrong, _ := ortx.NewTensor([]int64{1, 1, 8, 8}, make([]int64, 64))
	_, err = session.Run(context.Background(), wrong)
	failsWith(t, err, ortx.InvalidArgument, "int64", "image")
	wrong.Close()
	wrong.Close()
	_, err = session.Run(context.Background(), wrong)
	failsWith(t, err, ortx.InvalidArgument, "NULL")
	if _, err = ortx.Data[float32](wrong); err == nil {
		t.Error("a closed value gave data")
	}
}

func TestContextsStopRuns(t *testing.T) {
	session, err := ortx.Open(model, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	images, _ := ortx.NewTensor([]int64{256, 1, 8, 8}, make([]float32, 256*64))
	defer images.Close()
	ctx, cancel := context.WithCancel(context.Background())
	if _, err = session.Run(ctx, images); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = session.Run(ctx, images)
	failsWith(t, err, ortx.Cancelled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("not the context's: %v", err)
	}
	ctx, cancel = context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = session.Run(ctx, images)
	failsWith(t, err, ortx.Cancelled)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not the context's: %v", err)
	}
}

func TestManyGoroutinesShareASession(t *testing.T) {
	bytes, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	session, err := ortx.OpenBytes(bytes, nil)
	if err != nil {
		t.Fatal(err)
	}
	set, err := digitset.Read("../../models/digits_test.bin")
	if err != nil {
		t.Fatal(err)
	}
	if in := session.Inputs(); len(in) != 1 || in[0].Name != "image" || in[0].DType != ortx.Float32 || !slices.Equal(in[0].Shape, []int64{-1, 1, 8, 8}) || in[0].Symbols[0] == "" {
		t.Errorf("inputs: %+v", in)
	}
	var group sync.WaitGroup
	answers := make([][]float32, 4)
	for g := range answers {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 20 {
				// Left to the garbage collector.
				images, err := ortx.BorrowTensor([]int64{2, 1, 8, 8}, slices.Clone(set.Pixels[:128]), false)
				if err != nil {
					t.Error(err)
					return
				}
				outputs, err := session.Run(context.Background(), images)
				if err != nil {
					t.Error(err)
					return
				}
				data, err := ortx.Data[float32](outputs[0])
				if err != nil {
					t.Error(err)
					return
				}
				answers[g] = slices.Clone(data)
				runtime.KeepAlive(outputs[0])
				runtime.GC()
			}
		}()
	}
	group.Wait()
	for _, a := range answers {
		if len(a) != 20 || !slices.Equal(a, answers[0]) {
			t.Errorf("goroutines differ: %v, %v", a, answers[0])
		}
	}
	session.Close()
	session.Close()
}

func TestStrings(t *testing.T) {
	want := []string{"one", "", "zwei ä", "a\x00b"}
	v, err := ortx.NewStrings([]int64{2, 2}, want)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	got, err := v.Strings()
	if err != nil || !slices.Equal(got, want) {
		t.Fatal(got, err)
	}
	_, err = ortx.NewStrings([]int64{1}, []string{"\xff"})
	failsWith(t, err, ortx.InvalidArgument, "UTF-8")
	if shape, err := v.Shape(); err != nil || !slices.Equal(shape, []int64{2, 2}) {
		t.Fatal(shape, err)
	}
}

func TestOptions(t *testing.T) {
	environment, err := ortx.NewEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	defer environment.Close()
	image, _ := ortx.Zeros(ortx.Float32, []int64{1, 1, 8, 8})
	defer image.Close()
	answer := func(o *ortx.Options) []float32 {
		session, err := ortx.Open(model, o)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		out, err := session.Run(context.Background(), image)
		if err != nil {
			t.Fatal(err)
		}
		data, err := ortx.Data[float32](out[0])
		if err != nil {
			t.Fatal(err)
		}
		defer out[0].Close()
		return slices.Clone(data)
	}
	want := answer(nil)
	got := answer(&ortx.Options{Threads: 2, ISA: ortx.Scalar, Spin: -1, Load: ortx.ReadFile, KeepDenormals: true,
		DisableOptimization: true, Environment: environment, Devices: []ortx.DeviceChoice{{Name: "opencl:99"}}})
	for i := range want {
		if d := got[i] - want[i]; d > 1e-5 || d < -1e-5 {
			t.Errorf("other options, another answer: %v, %v", got, want)
		}
	}
	passed, err := ortx.Open(model, &ortx.Options{Devices: []ortx.DeviceChoice{{Name: "opencl:99"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	if m, err := passed.Metadata(); err != nil || len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0], "opencl:99") {
		t.Error(m, err)
	}
	_, err = ortx.Open(model, &ortx.Options{Devices: []ortx.DeviceChoice{{Name: "opencl:99", Required: true}}})
	failsWith(t, err, ortx.NotFound, "opencl:99")

	var done atomic.Int64
	pool := &ortx.ThreadPool{Width: 2, Parallel: func(count int, task func(worker, index int)) {
		var next atomic.Int64
		var group sync.WaitGroup
		for worker := range 2 {
			group.Add(1)
			go func() {
				defer group.Done()
				for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
					task(worker, int(i))
					done.Add(1)
				}
			}()
		}
		group.Wait()
	}}
	if got := answer(&ortx.Options{Pool: pool}); !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, want)
	}
	// Enough for more than one task.
	images, _ := ortx.Zeros(ortx.Float32, []int64{256, 1, 8, 8})
	session, err := ortx.Open(model, &ortx.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.Run(context.Background(), images); err != nil || done.Load() == 0 {
		t.Error(done.Load(), err)
	}
	_, err = ortx.Open("no such file.onnx", &ortx.Options{Pool: pool})
	failsWith(t, err, ortx.NotFound)
}

func TestBindings(t *testing.T) {
	bytes, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	session, err := ortx.OpenBorrowed(bytes, nil)
	if err != nil {
		t.Fatal(err)
	}
	binding, err := session.Bind()
	if err != nil {
		t.Fatal(err)
	}
	defer binding.Close()
	ctx := context.Background()
	failsWith(t, binding.Run(ctx), ortx.InvalidArgument, "image")
	pixels, answer := make([]float32, 64), make([]float32, 10)
	image, _ := ortx.BorrowTensor([]int64{1, 1, 8, 8}, pixels, false)
	output, _ := ortx.BorrowTensor([]int64{1, 10}, answer, true)
	if err := errors.Join(binding.SetInput(0, image), binding.SetOutput(0, output), binding.Run(ctx)); err != nil {
		t.Fatal(err)
	}
	blank := slices.Clone(answer)
	for i := range pixels {
		pixels[i] = float32(i%3) / 2
	}
	if err := binding.Run(ctx); err != nil || slices.Equal(answer, blank) {
		t.Fatal(err, answer)
	}
	named, err := session.RunNamed(ctx, map[string]*ortx.Value{"image": image}, "probabilities")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := ortx.Data[float32](named["probabilities"]); err != nil || !slices.Equal(data, answer) {
		t.Error(err, data, answer)
	}
	_, err = session.RunNamed(ctx, map[string]*ortx.Value{"picture": image})
	failsWith(t, err, ortx.InvalidArgument, "picture", "image")
	want := slices.Clone(answer)
	clear(answer)
	if err := session.RunInto(ctx, []*ortx.Value{image}, []*ortx.Value{output}); err != nil || !slices.Equal(want, answer) {
		t.Error(err, answer)
	}
	session.Close()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := binding.Run(cancelled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := errors.Join(binding.SetOutput(0, nil), binding.Run(ctx)); err != nil {
		t.Fatal(err)
	}
	own, err := binding.Output(0)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if data, err := ortx.Data[float32](own); err != nil || !slices.Equal(data, want) {
		t.Error(err, data)
	}
	failsWith(t, binding.SetInput(7, image), ortx.InvalidArgument, "7")
	failsWith(t, binding.SetInput(0, nil), ortx.InvalidArgument, "NULL")
	failsWith(t, binding.SetOutput(0, image), ortx.InvalidArgument)
}

func TestTensors(t *testing.T) {
	half, err := ortx.NewTensorBits(ortx.Float16, []int64{2}, []byte{0, 0x3c, 0, 0xc0})
	if err != nil {
		t.Fatal(err)
	}
	if bits, err := half.Bits(); err != nil || !slices.Equal(bits, []byte{0, 0x3c, 0, 0xc0}) {
		t.Error(bits, err)
	}
	if dtype, err := half.DType(); err != nil || dtype.String() != "float16" || dtype.Bits() != 16 {
		t.Error(dtype, err)
	}
	_, err = ortx.Data[float32](half)
	failsWith(t, err, ortx.InvalidArgument, "float16")
	zeros, err := ortx.Zeros(ortx.Int64, []int64{2})
	if err != nil {
		t.Fatal(err)
	}
	same, err := zeros.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := ortx.MutableData[int64](zeros); err != nil {
		t.Error(err)
	} else {
		data[1] = 7
	}
	if data, err := ortx.Data[int64](same); err != nil || !slices.Equal(data, []int64{0, 7}) {
		t.Error(data, err)
	}
	lent, _ := ortx.BorrowTensor([]int64{2}, []bool{true, false}, false)
	_, err = ortx.MutableData[bool](lent)
	failsWith(t, err, ortx.InvalidArgument, "read-only")
	if empty, err := ortx.NewTensor([]int64{0, 3}, []float32{}); err != nil {
		t.Error(err)
	} else if data, err := ortx.Data[float32](empty); err != nil || len(data) != 0 {
		t.Error(data, err)
	}
}

// small opens a model that tests/it/hosts.rs made.
func small(t *testing.T, name string) *ortx.Session {
	folder := os.Getenv("ORTX_TEST_MODELS")
	if folder == "" {
		t.Skip("skipped: ORTX_TEST_MODELS is not set: cargo test --test it hosts sets it")
	}
	session, err := ortx.Open(folder+"/"+name, &ortx.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestDefaultsAndMemory(t *testing.T) {
	session := small(t, "defaults.onnx")
	defer session.Close()
	if in, open := session.Inputs(), session.Overridable(); len(in) != 1 || len(open) != 1 || open[0].Name != "w" || open[0].Shape[0] != 1 {
		t.Errorf("%+v %+v", in, open)
	}
	x, _ := ortx.NewTensor([]int64{2}, []float32{1, 3})
	w, _ := ortx.NewTensor([]int64{1}, []float32{5})
	for _, c := range []struct {
		inputs map[string]*ortx.Value
		want   []float32
	}{{map[string]*ortx.Value{"x": x}, []float32{2, 6}}, {map[string]*ortx.Value{"x": x, "w": w}, []float32{5, 15}}} {
		out, err := session.RunNamed(context.Background(), c.inputs)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ortx.Data[float32](out["y"]); err != nil || !slices.Equal(got, c.want) {
			t.Error(got, c.want, err)
		}
	}
	used, peak, err := session.Memory()
	if err != nil || peak == 0 || used > peak {
		t.Error(used, peak, err)
	}
	if err := session.Trim(); err != nil {
		t.Error(err)
	}
	if after, _, err := session.Memory(); err != nil || after > used {
		t.Error(after, used, err)
	}
}

func TestSequences(t *testing.T) {
	session := small(t, "sequence.onnx")
	defer session.Close()
	if in := session.Inputs()[0]; in.Kind != ortx.SequenceKind || in.Element == nil || in.Element.DType != ortx.Float32 {
		t.Errorf("%+v", in)
	}
	one, _ := ortx.NewTensor([]int64{1}, []float32{1})
	two, _ := ortx.NewTensor([]int64{2}, []float32{2, 3})
	whole, _ := ortx.NewTensor([]int64{1}, []int64{1})
	sequence, err := ortx.NewSequence(one, two)
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.Run(context.Background(), sequence, one)
	if err != nil {
		t.Fatal(err)
	}
	if kind, err := out[0].Kind(); err != nil || kind != ortx.SequenceKind {
		t.Error(kind, err)
	}
	list, err := out[0].Elements()
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if data, err := ortx.Data[float32](list[2]); err != nil || !slices.Equal(data, []float32{1}) {
		t.Error(data, err)
	}
	_, err = session.Run(context.Background(), one, one)
	failsWith(t, err, ortx.InvalidArgument, "'s'")
	_, err = ortx.NewSequence(one, whole)
	failsWith(t, err, ortx.InvalidArgument)
	_, err = one.Elements()
	failsWith(t, err, ortx.InvalidArgument)

	full, err := ortx.NewOptional(whole)
	if err != nil {
		t.Fatal(err)
	}
	if inside, err := full.Element(); err != nil || inside == nil {
		t.Error(inside, err)
	}
	empty, err := ortx.NewOptional(nil)
	if err != nil {
		t.Fatal(err)
	}
	if inside, err := empty.Element(); err != nil || inside != nil {
		t.Error(inside, err)
	}
}

func TestMaps(t *testing.T) {
	session := small(t, "maps.onnx")
	defer session.Close()
	p, _ := ortx.NewTensor([]int64{1, 2}, []float32{0.25, 0.75})
	out, err := session.Run(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	list, err := out[0].Elements()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	keys, err := list[0].Keys()
	if err != nil {
		t.Fatal(err)
	}
	if names, err := keys.Strings(); err != nil || !slices.Equal(names, []string{"cat", "dog"}) {
		t.Error(names, err)
	}
	values, err := list[0].Values()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := ortx.Data[float32](values); err != nil || !slices.Equal(data, []float32{0.25, 0.75}) {
		t.Error(data, err)
	}
	if again, err := ortx.NewMap(keys, values); err != nil {
		t.Error(err)
	} else if kind, err := again.Kind(); err != nil || kind != ortx.MapKind {
		t.Error(kind, err)
	}
	_, err = ortx.NewMap(values, values)
	failsWith(t, err, ortx.InvalidArgument)
}

func TestMetadata(t *testing.T) {
	session := small(t, "strings.onnx")
	defer session.Close()
	m, err := session.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if m.ProducerName != "tiny" || m.GraphName != "strings" || m.ModelVersion != 42 || m.Opsets[""] != 21 || m.Properties["classes"] != "cat,dog" || m.Threads != 1 || m.ISA != ortx.ISAAvailable() {
		t.Errorf("%+v", m)
	}
	if ortx.ThreadsAvailable() < 1 || ortx.Scalar.String() != "scalar" || ortx.InvalidModel.String() != "invalid model" {
		t.Error(ortx.ThreadsAvailable(), ortx.Scalar, ortx.InvalidModel)
	}
}

func TestDevices(t *testing.T) {
	list, err := ortx.Devices()
	if err != nil {
		t.Fatal(err)
	}
	image, _ := ortx.Zeros(ortx.Float32, []int64{1, 1, 8, 8})
	for _, d := range list {
		t.Log(d.Name, d.Description)
		session, err := ortx.Open(model, &ortx.Options{Devices: []ortx.DeviceChoice{{Name: d.Name}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session.Run(context.Background(), image); err != nil || d.Memory == 0 || d.Type < ortx.CPU {
			t.Error(d, err)
		}
		session.Close()
	}
}
