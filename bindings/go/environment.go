package ortx

/*
#include <ortx.h>
*/
import "C"

import "runtime"

// Environment is what sessions may share: the devices found.
type Environment struct{ handle *C.ortx_environment }

// NewEnvironment makes an environment, to be given in Options.
func NewEnvironment() (*Environment, error) {
	e := &Environment{}
	if err := check(C.ortx_environment_create(&e.handle)); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(e, func(e *Environment) { e.Close() })
	return e, nil
}

// Close ends the environment; sessions made with it go on. Closing twice does nothing.
func (e *Environment) Close() {
	if e != nil && e.handle != nil {
		C.ortx_environment_destroy(e.handle)
		e.handle = nil
		runtime.SetFinalizer(e, nil)
	}
}

// DeviceType is the kind of processor that a device is.
type DeviceType int32

const (
	CPU         DeviceType = C.ORTX_DEVICE_CPU
	GPU         DeviceType = C.ORTX_DEVICE_GPU
	Accelerator DeviceType = C.ORTX_DEVICE_ACCELERATOR
)

// Device is a device that sessions can use beside the processor itself.
type Device struct {
	Name, Description string
	Type              DeviceType
	// Memory in bytes.
	Memory uint64
}

// Devices lists the devices there are; none where the machine has no OpenCL.
func (e *Environment) Devices() ([]Device, error) {
	defer runtime.KeepAlive(e)
	var count C.size_t
	if err := check(C.ortx_environment_device_count(e.handle, &count)); err != nil {
		return nil, err
	}
	var list []Device
	for i := C.size_t(0); i < count; i++ {
		var name, description *C.char
		var memory C.uint64_t
		var kind C.ortx_device_type
		if err := check(C.ortx_environment_device_name(e.handle, i, &name)); err != nil {
			return nil, err
		}
		if err := check(C.ortx_environment_device_description(e.handle, i, &description)); err != nil {
			return nil, err
		}
		if err := check(C.ortx_environment_device_type(e.handle, i, &kind)); err != nil {
			return nil, err
		}
		if err := check(C.ortx_environment_device_memory(e.handle, i, &memory)); err != nil {
			return nil, err
		}
		list = append(list, Device{C.GoString(name), C.GoString(description), DeviceType(kind), uint64(memory)})
	}
	return list, nil
}

// Devices lists the devices there are.
func Devices() ([]Device, error) {
	e, err := NewEnvironment()
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.Devices()
}
