package ortx

/*
#include <ortx.h>
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"errors"
	"runtime"
	"time"
	"unsafe"
)

// Options of a session; the zero value has the defaults.
type Options struct {
	// Threads that work on one run, the calling one included. 0: as many as the process may use cores.
	Threads int
	// MemoryLimit in bytes; 0: none.
	MemoryLimit uint64
	// Devices in order of preference, as Devices lists them; the processor takes what they cannot run.
	Devices []string
	// Settings are further options by name; see ortx_session_options in ortx.h.
	Settings map[string]string
}

// Session is a model, ready to run by any number of goroutines at once.
type Session struct {
	handle          *C.ortx_session
	inputs, outputs []IOInfo
}

// IOInfo describes an input or output.
type IOInfo struct {
	Name string
	// DType is the name of a tensor's element type, as ONNX has it ("float", "int64"); "" for other kinds.
	DType string
	// Shape has -1 where a size depends on the run; nil where not even the rank is known.
	Shape []int64
	// Symbols has the model's names of such sizes.
	Symbols []string
}

// Open makes a session from a model file. Options may be nil.
func Open(path string, options *Options) (*Session, error) {
	text := C.CString(path)
	defer C.free(unsafe.Pointer(text))
	return open(options, func(o *C.ortx_session_options, out **C.ortx_session) *C.ortx_status {
		return C.ortx_session_create_from_file(nil, text, o, out)
	})
}

// OpenBytes makes a session from a model in memory, which is copied. Options may be nil.
func OpenBytes(model []byte, options *Options) (*Session, error) {
	return open(options, func(o *C.ortx_session_options, out **C.ortx_session) *C.ortx_status {
		return C.ortx_session_create_from_memory(nil, unsafe.Pointer(unsafe.SliceData(model)), C.size_t(len(model)), nil, o, out)
	})
}

func open(options *Options, create func(*C.ortx_session_options, **C.ortx_session) *C.ortx_status) (*Session, error) {
	var raw C.ortx_session_options
	raw.struct_size = C.size_t(unsafe.Sizeof(raw))
	if o := options; o != nil {
		raw.threads = C.int32_t(o.Threads)
		raw.memory_limit = C.uint64_t(o.MemoryLimit)
		// What C points to must be C's memory.
		var owned []unsafe.Pointer
		defer func() {
			for _, p := range owned {
				C.free(p)
			}
		}()
		text := func(s string) *C.char {
			p := C.CString(s)
			owned = append(owned, unsafe.Pointer(p))
			return p
		}
		array := func(n int, size uintptr) unsafe.Pointer {
			p := C.calloc(C.size_t(n+1), C.size_t(size))
			owned = append(owned, p)
			return p
		}
		raw.devices = (*C.ortx_device_choice)(array(len(o.Devices), unsafe.Sizeof(C.ortx_device_choice{})))
		raw.device_count = C.size_t(len(o.Devices))
		for i, name := range o.Devices {
			unsafe.Slice(raw.devices, len(o.Devices))[i].name = text(name)
		}
		raw.settings = (*C.ortx_setting)(array(len(o.Settings), unsafe.Sizeof(C.ortx_setting{})))
		raw.setting_count = C.size_t(len(o.Settings))
		i := 0
		for key, value := range o.Settings {
			unsafe.Slice(raw.settings, len(o.Settings))[i] = C.ortx_setting{key: text(key), value: text(value)}
			i++
		}
	}
	s := &Session{}
	if err := check(create(&raw, &s.handle)); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(s, func(s *Session) { s.Close() })
	return s, s.describe()
}

// Close ends the session; runs that go on must be over. Closing twice does nothing.
func (s *Session) Close() {
	if s != nil && s.handle != nil {
		C.ortx_session_destroy(s.handle)
		s.handle = nil
		runtime.SetFinalizer(s, nil)
	}
}

// Inputs of the model, in its order.
func (s *Session) Inputs() []IOInfo { return s.inputs }

// Outputs of the model, in its order.
func (s *Session) Outputs() []IOInfo { return s.outputs }

func (s *Session) describe() error {
	var n C.size_t
	if err := check(C.ortx_session_input_count(s.handle, &n)); err != nil {
		return err
	}
	for i := C.size_t(0); i < n; i++ {
		var name *C.char
		var kind *C.ortx_type
		err := errors.Join(check(C.ortx_session_input_name(s.handle, i, &name)), check(C.ortx_session_input_type(s.handle, i, &kind)))
		if err != nil {
			return err
		}
		info, err := describe(name, kind)
		if err != nil {
			return err
		}
		s.inputs = append(s.inputs, info)
	}
	if err := check(C.ortx_session_output_count(s.handle, &n)); err != nil {
		return err
	}
	for i := C.size_t(0); i < n; i++ {
		var name *C.char
		var kind *C.ortx_type
		err := errors.Join(check(C.ortx_session_output_name(s.handle, i, &name)), check(C.ortx_session_output_type(s.handle, i, &kind)))
		if err != nil {
			return err
		}
		info, err := describe(name, kind)
		if err != nil {
			return err
		}
		s.outputs = append(s.outputs, info)
	}
	return nil
}

func describe(name *C.char, kind *C.ortx_type) (IOInfo, error) {
	info := IOInfo{Name: C.GoString(name)}
	var dtype C.ortx_dtype
	var rank C.int64_t
	if err := errors.Join(check(C.ortx_type_dtype(kind, &dtype)), check(C.ortx_type_rank(kind, &rank))); err != nil {
		return info, err
	}
	if dtype != C.ORTX_DTYPE_UNDEFINED {
		info.DType = C.GoString(C.ortx_dtype_name(dtype))
	}
	if rank >= 0 {
		info.Shape, info.Symbols = make([]int64, rank), make([]string, rank)
	}
	for i := range info.Shape {
		var size C.int64_t
		var symbol *C.char
		if err := check(C.ortx_type_dim(kind, C.size_t(i), &size, &symbol)); err != nil {
			return info, err
		}
		info.Shape[i] = int64(size)
		if symbol != nil {
			info.Symbols[i] = C.GoString(symbol)
		}
	}
	return info, nil
}

// Run runs the model on all its inputs, in its order, and gives all its outputs. It stops when the context is done; the
// error then has the code Cancelled and unwraps to the context's.
func (s *Session) Run(ctx context.Context, inputs ...*Value) ([]*Value, error) {
	defer runtime.KeepAlive(s)
	defer runtime.KeepAlive(inputs)
	var options C.ortx_run_options
	options.struct_size = C.size_t(unsafe.Sizeof(options))
	if ctx.Done() != nil {
		var token *C.ortx_cancel_token
		if err := check(C.ortx_cancel_token_create(&token)); err != nil {
			return nil, err
		}
		options.cancel_token = token
		stop := make(chan struct{})
		over := make(chan struct{})
		go func() {
			defer close(over)
			select {
			case <-ctx.Done():
				C.ortx_status_destroy(C.ortx_cancel_token_cancel(token))
			case <-stop:
			}
		}()
		// The token goes after whoever may cancel it.
		defer func() {
			close(stop)
			<-over
			C.ortx_cancel_token_destroy(token)
		}()
		if ctx.Err() != nil {
			C.ortx_status_destroy(C.ortx_cancel_token_cancel(token))
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		options.timeout_ns = C.uint64_t(max(time.Until(deadline).Nanoseconds(), 1))
	}
	in := make([]*C.ortx_value, len(inputs)+1)
	for i, v := range inputs {
		if v != nil {
			in[i] = v.handle
		}
	}
	out := make([]*C.ortx_value, len(s.outputs)+1)
	err := s.run(&options, in, len(inputs), out)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Code == Cancelled {
			e.cause = context.Cause(ctx)
			if e.cause == nil {
				e.cause = context.DeadlineExceeded
			}
		}
		return nil, err
	}
	results := make([]*Value, len(s.outputs))
	for i := range results {
		results[i] = newValue(out[i])
	}
	return results, nil
}

func (s *Session) run(options *C.ortx_run_options, in []*C.ortx_value, inputs int, out []*C.ortx_value) error {
	return check(C.ortx_session_run(s.handle, options, nil, &in[0], C.size_t(inputs), nil, &out[0], C.size_t(len(s.outputs))))
}
