// Package ortx runs ONNX models: the C library libortx behind Go's idioms. Errors are *Error, runs stop with their
// context, what is open is closed with Close (or, if that is forgotten, by the garbage collector).
//
// cgo must find ortx.h and libortx: set CGO_CFLAGS=-I... and CGO_LDFLAGS=-L... where they are not installed.
package ortx

/*
#cgo LDFLAGS: -lortx
#include <ortx.h>
#include <stdlib.h>

// Go cannot name a function pointer's value: these pass the exported Go functions on.
extern void ortxGoRelease(void *user);
static ortx_status *ortx_go_borrow(ortx_dtype dtype, const int64_t *shape, size_t rank, void *data, size_t size,
                                   int32_t writable, uintptr_t user, ortx_value **tensor) {
  return writable ? ortx_tensor_create_borrowed_mut(dtype, shape, rank, data, size, ortxGoRelease, (void *)user, tensor)
                  : ortx_tensor_create_borrowed(dtype, shape, rank, data, size, ortxGoRelease, (void *)user, tensor);
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

func init() {
	if have := uint32(C.ortx_abi_version()); have != C.ORTX_ABI_VERSION {
		panic(fmt.Sprintf("ortx: the library has ABI version %d, this package needs %d", have, C.ORTX_ABI_VERSION))
	}
}

// Version of the library, such as "0.1.0".
func Version() string { return C.GoString(C.ortx_version()) }

// Code tells what went wrong; the numbers are those of ortx.h.
type Code int32

const (
	InvalidArgument Code = C.ORTX_ERROR_INVALID_ARGUMENT
	InvalidModel    Code = C.ORTX_ERROR_INVALID_MODEL
	Unsupported     Code = C.ORTX_ERROR_UNSUPPORTED
	NotFound        Code = C.ORTX_ERROR_NOT_FOUND
	IO              Code = C.ORTX_ERROR_IO
	OutOfMemory     Code = C.ORTX_ERROR_OUT_OF_MEMORY
	RunFailed       Code = C.ORTX_ERROR_RUN
	Cancelled       Code = C.ORTX_ERROR_CANCELLED
	DeviceError     Code = C.ORTX_ERROR_DEVICE
	Internal        Code = C.ORTX_ERROR_INTERNAL
)

func (c Code) String() string { return C.GoString(C.ortx_code_name(C.ortx_code(c))) }

// Error is what every failed call returns.
type Error struct {
	Code    Code
	Message string
	// Contexts are the places that the error passed, outermost first.
	Contexts []string
	text     string
	cause    error
}

func (e *Error) Error() string { return "ortx: " + e.text }

// Unwrap gives the context's error where it was the context that stopped a run.
func (e *Error) Unwrap() error { return e.cause }

// check turns a status into an error and frees it.
func check(status *C.ortx_status) error {
	if status == nil {
		return nil
	}
	defer C.ortx_status_destroy(status)
	e := &Error{
		Code:    Code(C.ortx_status_code(status)),
		Message: C.GoString(C.ortx_status_message(status)),
		text:    C.GoString(C.ortx_status_text(status)),
	}
	for i := C.size_t(0); i < C.ortx_status_context_count(status); i++ {
		e.Contexts = append(e.Contexts, C.GoString(C.ortx_status_context(status, i)))
	}
	return e
}

func invalid(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return &Error{Code: InvalidArgument, Message: text, text: text}
}

// Device is a device that sessions can use beside the processor itself.
type Device struct {
	Name, Description string
	// Memory in bytes.
	Memory uint64
}

// Devices lists the devices there are; none where the machine has no OpenCL.
func Devices() ([]Device, error) {
	var env *C.ortx_environment
	if err := check(C.ortx_environment_create(&env)); err != nil {
		return nil, err
	}
	defer C.ortx_environment_destroy(env)
	var count C.size_t
	if err := check(C.ortx_environment_device_count(env, &count)); err != nil {
		return nil, err
	}
	var list []Device
	for i := C.size_t(0); i < count; i++ {
		var name, description *C.char
		var memory C.uint64_t
		if err := check(C.ortx_environment_device_name(env, i, &name)); err != nil {
			return nil, err
		}
		if err := check(C.ortx_environment_device_description(env, i, &description)); err != nil {
			return nil, err
		}
		if err := check(C.ortx_environment_device_memory(env, i, &memory)); err != nil {
			return nil, err
		}
		list = append(list, Device{C.GoString(name), C.GoString(description), uint64(memory)})
	}
	return list, nil
}

// Value is a tensor, sequence, optional or map in the library's memory.
type Value struct{ handle *C.ortx_value }

func newValue(handle *C.ortx_value) *Value {
	v := &Value{handle}
	runtime.SetFinalizer(v, func(v *Value) { v.Close() })
	return v
}

// Close frees the value. Slices that it gave out must not be used any more. Closing twice does nothing.
func (v *Value) Close() {
	if v != nil && v.handle != nil {
		C.ortx_value_destroy(v.handle)
		v.handle = nil
		runtime.SetFinalizer(v, nil)
	}
}

// Element is a Go type that tensors hold as it is.
type Element interface {
	float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

func dtypeOf[T Element]() C.ortx_dtype {
	var zero T
	switch any(zero).(type) {
	case float32:
		return C.ORTX_DTYPE_FLOAT32
	case float64:
		return C.ORTX_DTYPE_FLOAT64
	case int8:
		return C.ORTX_DTYPE_INT8
	case int16:
		return C.ORTX_DTYPE_INT16
	case int32:
		return C.ORTX_DTYPE_INT32
	case int64:
		return C.ORTX_DTYPE_INT64
	case uint8:
		return C.ORTX_DTYPE_UINT8
	case uint16:
		return C.ORTX_DTYPE_UINT16
	case uint32:
		return C.ORTX_DTYPE_UINT32
	case uint64:
		return C.ORTX_DTYPE_UINT64
	default:
		return C.ORTX_DTYPE_BOOL
	}
}

func shapePointer(shape []int64) *C.int64_t { return (*C.int64_t)(unsafe.SliceData(shape)) }

func byteSize[T Element](data []T) C.size_t {
	var zero T
	return C.size_t(uintptr(len(data)) * unsafe.Sizeof(zero))
}

// NewTensor makes a tensor with a copy of data.
func NewTensor[T Element](shape []int64, data []T) (*Value, error) {
	var handle *C.ortx_value
	status := C.ortx_tensor_create_from_copy(dtypeOf[T](), shapePointer(shape), C.size_t(len(shape)),
		unsafe.Pointer(unsafe.SliceData(data)), byteSize(data), &handle)
	if err := check(status); err != nil {
		return nil, err
	}
	return newValue(handle), nil
}

// BorrowTensor makes a tensor over the memory of data, without copying it. Runs may write to it if it is writable. The
// memory is pinned until the last value that shares it is closed.
func BorrowTensor[T Element](shape []int64, data []T, writable bool) (*Value, error) {
	if len(data) == 0 {
		return NewTensor(shape, data)
	}
	var handle *C.ortx_value
	var mode C.int32_t
	if writable {
		mode = 1
	}
	status := C.ortx_go_borrow(dtypeOf[T](), shapePointer(shape), C.size_t(len(shape)),
		unsafe.Pointer(unsafe.SliceData(data)), byteSize(data), mode, C.uintptr_t(pin(unsafe.SliceData(data))), &handle)
	if err := check(status); err != nil {
		return nil, err
	}
	return newValue(handle), nil
}

// NewStrings makes a tensor of strings.
func NewStrings(shape []int64, data []string) (*Value, error) {
	texts := (*[1 << 28]*C.char)(C.calloc(C.size_t(len(data)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(texts))
	lengths := make([]C.size_t, len(data)+1)
	for i, s := range data {
		texts[i] = C.CString(s)
		defer C.free(unsafe.Pointer(texts[i]))
		lengths[i] = C.size_t(len(s))
	}
	var handle *C.ortx_value
	status := C.ortx_tensor_create_from_strings(shapePointer(shape), C.size_t(len(shape)), &texts[0], &lengths[0],
		C.size_t(len(data)), &handle)
	if err := check(status); err != nil {
		return nil, err
	}
	return newValue(handle), nil
}

// Shape of a tensor, outermost axis first.
func (v *Value) Shape() ([]int64, error) {
	defer runtime.KeepAlive(v)
	var rank C.size_t
	if err := check(C.ortx_tensor_shape(v.handle, nil, 0, &rank)); err != nil {
		return nil, err
	}
	shape := make([]int64, rank)
	return shape, check(C.ortx_tensor_shape(v.handle, shapePointer(shape), rank, &rank))
}

// Data gives a tensor's elements in place: the slice is valid until the value is closed, so keep the value. The elements'
// type must be the tensor's.
func Data[T Element](v *Value) ([]T, error) {
	defer runtime.KeepAlive(v)
	var dtype C.ortx_dtype
	if err := check(C.ortx_tensor_dtype(v.handle, &dtype)); err != nil {
		return nil, err
	}
	if want := dtypeOf[T](); dtype != want {
		return nil, invalid("the tensor is %s, not %s", C.GoString(C.ortx_dtype_name(dtype)), C.GoString(C.ortx_dtype_name(want)))
	}
	var data unsafe.Pointer
	var count C.size_t
	if err := check(C.ortx_tensor_data(v.handle, &data)); err != nil {
		return nil, err
	}
	if err := check(C.ortx_tensor_count(v.handle, &count)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*T)(data), int(count)), nil
}

// Strings gives a copy of the elements of a tensor of strings.
func (v *Value) Strings() ([]string, error) {
	defer runtime.KeepAlive(v)
	var count C.size_t
	if err := check(C.ortx_tensor_count(v.handle, &count)); err != nil {
		return nil, err
	}
	list := make([]string, 0, int(count))
	for i := C.size_t(0); i < count; i++ {
		var text *C.char
		var length C.size_t
		if err := check(C.ortx_tensor_string(v.handle, i, &text, &length)); err != nil {
			return nil, err
		}
		list = append(list, string(unsafe.Slice((*byte)(unsafe.Pointer(text)), int(length))))
	}
	return list, nil
}

// Elements gives the values of a sequence.
func (v *Value) Elements() ([]*Value, error) {
	defer runtime.KeepAlive(v)
	var count C.size_t
	if err := check(C.ortx_sequence_count(v.handle, &count)); err != nil {
		return nil, err
	}
	var list []*Value
	for i := C.size_t(0); i < count; i++ {
		var element *C.ortx_value
		if err := check(C.ortx_sequence_get(v.handle, i, &element)); err != nil {
			return nil, err
		}
		list = append(list, newValue(element))
	}
	return list, nil
}
