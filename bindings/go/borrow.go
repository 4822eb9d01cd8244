package ortx

import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// pin keeps Go memory where it is until ortxGoRelease is called with the handle returned.
func pin[T any](memory *T) cgo.Handle {
	p := new(runtime.Pinner)
	p.Pin(memory)
	return cgo.NewHandle(p)
}

//export ortxGoRelease
func ortxGoRelease(user unsafe.Pointer) {
	h := cgo.Handle(uintptr(user))
	h.Value().(*runtime.Pinner).Unpin()
	h.Delete()
}
