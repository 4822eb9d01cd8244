package ortx

/*
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
	"runtime"
	"unsafe"
)

// Value is a tensor, sequence, optional or map in the library's memory.
type Value struct{ handle *C.ortx_value }

// take makes a value of what create gives.
func take(create func(**C.ortx_value) *C.ortx_status) (*Value, error) {
	var handle *C.ortx_value
	if err := check(create(&handle)); err != nil {
		return nil, err
	}
	return newValue(handle), nil
}

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

// DTypeOf is the element type that a Go type stands for.
func DTypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return Float32
	case float64:
		return Float64
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	default:
		return Bool
	}
}

func shapePointer(shape []int64) *C.int64_t { return (*C.int64_t)(unsafe.SliceData(shape)) }

func byteSize[T Element](data []T) C.size_t {
	var zero T
	return C.size_t(uintptr(len(data)) * unsafe.Sizeof(zero))
}

// NewTensor makes a tensor with a copy of data.
func NewTensor[T Element](shape []int64, data []T) (*Value, error) {
	return copyTensor(DTypeOf[T](), shape, unsafe.Pointer(unsafe.SliceData(data)), byteSize(data))
}

// NewTensorBits makes a tensor of any element type but String with a copy of its bytes: row by row, elements of fewer than
// 8 bits packed, the first in the low bits.
func NewTensorBits(dtype DType, shape []int64, data []byte) (*Value, error) {
	return copyTensor(dtype, shape, unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)))
}

func copyTensor(dtype DType, shape []int64, data unsafe.Pointer, size C.size_t) (*Value, error) {
	if data == nil {
		data = unsafe.Pointer(&nothing)
	}
	return take(func(out **C.ortx_value) *C.ortx_status {
		return C.ortx_tensor_create_from_copy(C.ortx_dtype(dtype), shapePointer(shape), C.size_t(len(shape)), data, size, out)
	})
}

// Where slices without elements point to.
var nothing byte

// Zeros makes a tensor of zeros, or of empty strings.
func Zeros(dtype DType, shape []int64) (*Value, error) {
	return take(func(out **C.ortx_value) *C.ortx_status {
		return C.ortx_tensor_create(C.ortx_dtype(dtype), shapePointer(shape), C.size_t(len(shape)), out)
	})
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
	status := C.ortx_go_borrow(C.ortx_dtype(DTypeOf[T]()), shapePointer(shape), C.size_t(len(shape)),
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

// Kind tells what the value is.
func (v *Value) Kind() (Kind, error) {
	defer runtime.KeepAlive(v)
	var kind C.ortx_kind
	err := check(C.ortx_value_kind(v.handle, &kind))
	return Kind(kind), err
}

// Clone makes another handle of the same memory.
func (v *Value) Clone() (*Value, error) {
	defer runtime.KeepAlive(v)
	return take(func(out **C.ortx_value) *C.ortx_status { return C.ortx_value_clone(v.handle, out) })
}

// DType is a tensor's element type.
func (v *Value) DType() (DType, error) {
	defer runtime.KeepAlive(v)
	var dtype C.ortx_dtype
	err := check(C.ortx_tensor_dtype(v.handle, &dtype))
	return DType(dtype), err
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

// Data gives a tensor's elements in place, to read: the slice is valid until the value is closed, so keep the value. The
// elements' type must be the tensor's.
func Data[T Element](v *Value) ([]T, error) {
	return elements[T](v, func(data *unsafe.Pointer) *C.ortx_status { return C.ortx_tensor_data(v.handle, data) })
}

// MutableData gives a tensor's elements in place, to write. What is written is seen by all values that share the memory.
func MutableData[T Element](v *Value) ([]T, error) {
	return elements[T](v, func(data *unsafe.Pointer) *C.ortx_status { return C.ortx_tensor_data_mut(v.handle, data) })
}

func elements[T Element](v *Value, get func(*unsafe.Pointer) *C.ortx_status) ([]T, error) {
	defer runtime.KeepAlive(v)
	dtype, err := v.DType()
	if err != nil {
		return nil, err
	}
	if want := DTypeOf[T](); dtype != want {
		return nil, invalid("the tensor is %s, not %s", dtype, want)
	}
	var data unsafe.Pointer
	var count C.size_t
	if err := check(get(&data)); err != nil {
		return nil, err
	}
	if err := check(C.ortx_tensor_count(v.handle, &count)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*T)(data), int(count)), nil
}

// Bits gives a tensor's bytes in place, to read, whatever its element type; as Data otherwise.
func (v *Value) Bits() ([]byte, error) {
	defer runtime.KeepAlive(v)
	var data unsafe.Pointer
	var size C.size_t
	if err := check(C.ortx_tensor_data(v.handle, &data)); err != nil {
		return nil, err
	}
	if err := check(C.ortx_tensor_byte_size(v.handle, &size)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(data), int(size)), nil
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

// handles of values for C; nil values are NULL.
func handles(values []*Value) []*C.ortx_value {
	list := make([]*C.ortx_value, len(values)+1)
	for i, v := range values {
		if v != nil {
			list[i] = v.handle
		}
	}
	return list
}

// NewSequence makes a sequence of values of one type, which stay the caller's and share their memory.
func NewSequence(elements ...*Value) (*Value, error) {
	defer runtime.KeepAlive(elements)
	list := handles(elements)
	return take(func(out **C.ortx_value) *C.ortx_status {
		return C.ortx_sequence_create(&list[0], C.size_t(len(elements)), out)
	})
}

// NewOptional makes an optional; an empty one for nil.
func NewOptional(element *Value) (*Value, error) {
	defer runtime.KeepAlive(element)
	handle := handles([]*Value{element})[0]
	return take(func(out **C.ortx_value) *C.ortx_status { return C.ortx_optional_create(handle, out) })
}

// Element gives what an optional holds; nil where it is empty.
func (v *Value) Element() (*Value, error) {
	defer runtime.KeepAlive(v)
	var handle *C.ortx_value
	if err := check(C.ortx_optional_get(v.handle, &handle)); err != nil || handle == nil {
		return nil, err
	}
	return newValue(handle), nil
}

// NewMap makes a map of a tensor of keys to a tensor or sequence with an entry a key, in the same order.
func NewMap(keys, values *Value) (*Value, error) {
	defer runtime.KeepAlive(keys)
	defer runtime.KeepAlive(values)
	list := handles([]*Value{keys, values})
	return take(func(out **C.ortx_value) *C.ortx_status { return C.ortx_map_create(list[0], list[1], out) })
}

// Keys of a map: a tensor.
func (v *Value) Keys() (*Value, error) {
	defer runtime.KeepAlive(v)
	return take(func(out **C.ortx_value) *C.ortx_status { return C.ortx_map_keys(v.handle, out) })
}

// Values of a map in the order of its keys: a tensor or a sequence.
func (v *Value) Values() (*Value, error) {
	defer runtime.KeepAlive(v)
	return take(func(out **C.ortx_value) *C.ortx_status { return C.ortx_map_values(v.handle, out) })
}
