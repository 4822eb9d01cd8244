package ortx

/*
#include <ortx.h>
*/
import "C"

import (
	"context"
	"errors"
	"runtime"
	"time"
	"unsafe"
)

// Run runs the model on all its inputs, in its order, and gives all its outputs. It stops when the context is done; the
// error then has the code Cancelled and unwraps to the context's.
func (s *Session) Run(ctx context.Context, inputs ...*Value) ([]*Value, error) {
	outputs := make([]*Value, len(s.outputs))
	return outputs, s.run(ctx, nil, inputs, nil, outputs)
}

// RunInto is Run into tensors that the caller has; nil ones are replaced with new values.
func (s *Session) RunInto(ctx context.Context, inputs, outputs []*Value) error {
	return s.run(ctx, nil, inputs, nil, outputs)
}

// RunNamed is Run on inputs by name, for these outputs only, or all where none is named.
func (s *Session) RunNamed(ctx context.Context, inputs map[string]*Value, outputs ...string) (map[string]*Value, error) {
	var ins, outs []C.size_t
	var values []*Value
	for name, v := range inputs {
		i, err := s.InputIndex(name)
		if err != nil {
			return nil, err
		}
		ins, values = append(ins, C.size_t(i)), append(values, v)
	}
	if len(outputs) == 0 {
		for _, o := range s.outputs {
			outputs = append(outputs, o.Name)
		}
	}
	for _, name := range outputs {
		i, err := s.OutputIndex(name)
		if err != nil {
			return nil, err
		}
		outs = append(outs, C.size_t(i))
	}
	results := make([]*Value, len(outputs))
	if err := s.run(ctx, ins, values, outs, results); err != nil {
		return nil, err
	}
	named := map[string]*Value{}
	for i, name := range outputs {
		named[name] = results[i]
	}
	return named, nil
}

func (s *Session) run(ctx context.Context, inputIndices []C.size_t, inputs []*Value, outputIndices []C.size_t, outputs []*Value) error {
	defer runtime.KeepAlive(s)
	defer runtime.KeepAlive(inputs)
	in, out := handles(inputs), handles(outputs)
	err := within(ctx, func(options *C.ortx_run_options) *C.ortx_status {
		return C.ortx_session_run(s.handle, options, unsafe.SliceData(inputIndices), &in[0], C.size_t(len(inputs)),
			unsafe.SliceData(outputIndices), &out[0], C.size_t(len(outputs)))
	})
	if err != nil {
		return err
	}
	for i := range outputs {
		if outputs[i] == nil {
			outputs[i] = newValue(out[i])
		}
	}
	return nil
}

// within calls run with options that stop it when the context is done.
func within(ctx context.Context, run func(*C.ortx_run_options) *C.ortx_status) error {
	var options C.ortx_run_options
	options.struct_size = C.size_t(unsafe.Sizeof(options))
	if ctx.Done() != nil {
		var token *C.ortx_cancel_token
		if err := check(C.ortx_cancel_token_create(&token)); err != nil {
			return err
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
	err := check(run(&options))
	var e *Error
	if errors.As(err, &e) && e.Code == Cancelled {
		e.cause = context.Cause(ctx)
		if e.cause == nil {
			e.cause = context.DeadlineExceeded
		}
	}
	return err
}

// Binding has inputs and outputs set once, for repeated runs that allocate nothing. For one goroutine at a time.
type Binding struct{ handle *C.ortx_binding }

// Bind makes a binding of the session, which may be closed before it.
func (s *Session) Bind() (*Binding, error) {
	defer runtime.KeepAlive(s)
	b := &Binding{}
	if err := check(C.ortx_binding_create(s.handle, &b.handle)); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(b, func(b *Binding) { b.Close() })
	return b, nil
}

// Close ends the binding; values set in it stay the caller's. Closing twice does nothing.
func (b *Binding) Close() {
	if b != nil && b.handle != nil {
		C.ortx_binding_destroy(b.handle)
		b.handle = nil
		runtime.SetFinalizer(b, nil)
	}
}

// SetInput sets an input for all runs to come; what is written to its memory between runs is seen by them.
func (b *Binding) SetInput(index int, value *Value) error {
	defer runtime.KeepAlive(b)
	defer runtime.KeepAlive(value)
	return check(C.ortx_binding_set_input(b.handle, C.size_t(index), handles([]*Value{value})[0]))
}

// SetOutput sets the tensor that runs write an output to; nil: memory of the binding's own.
func (b *Binding) SetOutput(index int, tensor *Value) error {
	defer runtime.KeepAlive(b)
	defer runtime.KeepAlive(tensor)
	return check(C.ortx_binding_set_output(b.handle, C.size_t(index), handles([]*Value{tensor})[0]))
}

// Run runs the model on the inputs set; the context stops it as it does Session.Run.
func (b *Binding) Run(ctx context.Context) error {
	defer runtime.KeepAlive(b)
	return within(ctx, func(options *C.ortx_run_options) *C.ortx_status { return C.ortx_binding_run(b.handle, options) })
}

// Output gives an output of the last run.
func (b *Binding) Output(index int) (*Value, error) {
	defer runtime.KeepAlive(b)
	return take(func(out **C.ortx_value) *C.ortx_status { return C.ortx_binding_output(b.handle, C.size_t(index), out) })
}
