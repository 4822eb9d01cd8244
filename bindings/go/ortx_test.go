package ortx_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
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
	if in := session.Inputs(); len(in) != 1 || in[0].Name != "image" || in[0].DType != "float" || !slices.Equal(in[0].Shape, []int64{-1, 1, 8, 8}) || in[0].Symbols[0] == "" {
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

func TestDevices(t *testing.T) {
	list, err := ortx.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		t.Log(d.Name, d.Description)
	}
}
