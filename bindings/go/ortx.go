// Package ortx runs ONNX models: the C library libortx behind Go's idioms. Errors are *Error, runs stop with their
// context, what is open is closed with Close (or, if that is forgotten, by the garbage collector).
//
// cgo must find ortx.h and libortx: set CGO_CFLAGS=-I... and CGO_LDFLAGS=-L... where they are not installed.
package ortx

/*
#cgo LDFLAGS: -lortx
#include <ortx.h>
*/
import "C"

import "fmt"

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

// ISA is a level of processor instructions.
type ISA int32

const (
	// DefaultISA stands in options for the processor's highest level.
	DefaultISA ISA = C.ORTX_ISA_DEFAULT
	Scalar     ISA = C.ORTX_ISA_SCALAR
	AVX2       ISA = C.ORTX_ISA_AVX2
	AVX512     ISA = C.ORTX_ISA_AVX512
)

func (l ISA) String() string { return C.GoString(C.ortx_isa_name(C.ortx_isa(l))) }

// ISAAvailable is the level that a session uses unless told otherwise.
func ISAAvailable() ISA { return ISA(C.ortx_isa_available()) }

// ThreadsAvailable is the number of threads that a session uses unless told otherwise.
func ThreadsAvailable() int { return int(C.ortx_threads_available()) }

// DType is an element type; the numbers are those of ONNX.
type DType int32

const (
	Undefined      DType = C.ORTX_DTYPE_UNDEFINED
	Float32        DType = C.ORTX_DTYPE_FLOAT32
	Uint8          DType = C.ORTX_DTYPE_UINT8
	Int8           DType = C.ORTX_DTYPE_INT8
	Uint16         DType = C.ORTX_DTYPE_UINT16
	Int16          DType = C.ORTX_DTYPE_INT16
	Int32          DType = C.ORTX_DTYPE_INT32
	Int64          DType = C.ORTX_DTYPE_INT64
	String         DType = C.ORTX_DTYPE_STRING
	Bool           DType = C.ORTX_DTYPE_BOOL
	Float16        DType = C.ORTX_DTYPE_FLOAT16
	Float64        DType = C.ORTX_DTYPE_FLOAT64
	Uint32         DType = C.ORTX_DTYPE_UINT32
	Uint64         DType = C.ORTX_DTYPE_UINT64
	Complex64      DType = C.ORTX_DTYPE_COMPLEX64
	Complex128     DType = C.ORTX_DTYPE_COMPLEX128
	BFloat16       DType = C.ORTX_DTYPE_BFLOAT16
	Float8E4M3FN   DType = C.ORTX_DTYPE_FLOAT8E4M3FN
	Float8E4M3FNUZ DType = C.ORTX_DTYPE_FLOAT8E4M3FNUZ
	Float8E5M2     DType = C.ORTX_DTYPE_FLOAT8E5M2
	Float8E5M2FNUZ DType = C.ORTX_DTYPE_FLOAT8E5M2FNUZ
	Uint4          DType = C.ORTX_DTYPE_UINT4
	Int4           DType = C.ORTX_DTYPE_INT4
	Float4E2M1     DType = C.ORTX_DTYPE_FLOAT4E2M1
	Float8E8M0     DType = C.ORTX_DTYPE_FLOAT8E8M0
	Uint2          DType = C.ORTX_DTYPE_UINT2
	Int2           DType = C.ORTX_DTYPE_INT2
	Float6E2M3     DType = C.ORTX_DTYPE_FLOAT6E2M3
	Float6E3M2     DType = C.ORTX_DTYPE_FLOAT6E3M2
)

// String is ONNX's name, such as "float16".
func (d DType) String() string { return C.GoString(C.ortx_dtype_name(C.ortx_dtype(d))) }

// Bits that an element takes in a tensor's memory; 0 for strings.
func (d DType) Bits() int { return int(C.ortx_dtype_bits(C.ortx_dtype(d))) }

// Kind tells what a value is.
type Kind int32

const (
	UnknownKind  Kind = C.ORTX_KIND_UNKNOWN
	TensorKind   Kind = C.ORTX_KIND_TENSOR
	SequenceKind Kind = C.ORTX_KIND_SEQUENCE
	OptionalKind Kind = C.ORTX_KIND_OPTIONAL
	MapKind      Kind = C.ORTX_KIND_MAP
)
