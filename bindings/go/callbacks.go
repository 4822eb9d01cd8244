package ortx

/*
#include <ortx.h>
static inline void ortx_go_call(ortx_task task, void *context, size_t worker, size_t index) { task(context, worker, index); }
*/
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
	if p, pinned := h.Value().(*runtime.Pinner); pinned {
		p.Unpin()
	}
	h.Delete()
}

//export ortxGoParallel
func ortxGoParallel(user unsafe.Pointer, count C.size_t, task C.ortx_task, context unsafe.Pointer) {
	pool := cgo.Handle(uintptr(user)).Value().(*ThreadPool)
	pool.Parallel(int(count), func(worker, index int) {
		C.ortx_go_call(task, context, C.size_t(worker), C.size_t(index))
	})
}
