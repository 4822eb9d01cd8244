package ortx

/*
#include <ortx.h>
#include <stdlib.h>

extern void ortxGoRelease(void *user);
extern void ortxGoParallel(void *user, size_t count, ortx_task task, void *context);
static void ortx_go_pool(ortx_thread_pool *pool, uintptr_t user) {
  pool->user = (void *)user;
  pool->parallel = ortxGoParallel;
  pool->release = ortxGoRelease;
}
static ortx_status *ortx_go_session(const ortx_environment *environment, void *data, size_t size, uintptr_t user,
                                    const char *folder, const ortx_session_options *options, ortx_session **session) {
  return ortx_session_create_from_borrowed_memory(environment, data, size, ortxGoRelease, (void *)user, folder, options,
                                                  session);
}
*/
import "C"

import (
	"errors"
	"runtime"
	"runtime/cgo"
	"time"
	"unsafe"
)

// DeviceChoice is a device that a session may use before the processor.
type DeviceChoice struct {
	// Name as Devices lists it.
	Name string
	// Required: it is an error if the device is not there, or cannot run an operator.
	Required bool
}

// Load tells how a model file comes into memory.
type Load int32

const (
	// MapFile reads as needed; whoever shortens the file while a session lives ends the process.
	MapFile Load = C.ORTX_LOAD_MAP
	// ReadFile reads at once.
	ReadFile Load = C.ORTX_LOAD_READ
)

// ThreadPool lets sessions run on goroutines of the program.
type ThreadPool struct {
	// Width is how many workers there are, the calling one included.
	Width int
	// Parallel calls task(worker, index) once for each index below count, in any order, and returns when all these calls
	// have. No two calls at one time have the same worker, below Width, within one loop. It must not panic.
	Parallel func(count int, task func(worker, index int))
}

// Options of a session; the zero value has the defaults.
type Options struct {
	// Threads that work on one run, the calling one included. 0: as many as the process may use cores.
	Threads int
	// ISA is the highest level of instructions to use.
	ISA ISA
	// Spin is how long idle threads spin before they sleep; 0: the default, negative: not at all.
	Spin time.Duration
	// Devices in order of preference; the processor takes what they cannot run.
	Devices []DeviceChoice
	// Load tells how a model file comes into memory.
	Load Load
	// KeepDenormals: denormal numbers count as they are.
	KeepDenormals bool
	// DisableOptimization: the graph runs as it stands in the file.
	DisableOptimization bool
	// MemoryLimit in bytes; 0: none.
	MemoryLimit uint64
	// Pool has the threads to run on, instead of the session's own.
	Pool *ThreadPool
	// Settings are further options by name; see ortx_session_options in ortx.h.
	Settings map[string]string
	// Environment to share with other sessions; may be nil.
	Environment *Environment
	// Folder with the files that a model in memory keeps tensors in; "" if there are none.
	Folder string
}

// Session is a model, ready to run by any number of goroutines at once.
type Session struct {
	handle                       *C.ortx_session
	inputs, overridable, outputs []IOInfo
}

// Type is what is known of a value before the model runs.
type Type struct {
	Kind Kind
	// DType of a tensor's elements or a map's keys; Undefined for other kinds.
	DType DType
	// Shape has -1 where a size depends on the run; nil where not even the rank is known, and for other kinds.
	Shape []int64
	// Symbols has the model's names of such sizes.
	Symbols []string
	// Element is the type of what a sequence or optional holds, or of a map's values; else nil.
	Element *Type
}

// IOInfo describes an input or output.
type IOInfo struct {
	Name string
	Type
}

// Open makes a session from a model file. Options may be nil.
func Open(path string, options *Options) (*Session, error) {
	text := C.CString(path)
	defer C.free(unsafe.Pointer(text))
	return open(options, func(env *C.ortx_environment, _ *C.char, o *C.ortx_session_options, out **C.ortx_session) *C.ortx_status {
		return C.ortx_session_create_from_file(env, text, o, out)
	})
}

// OpenBytes makes a session from a model in memory, which is copied. Options may be nil.
func OpenBytes(model []byte, options *Options) (*Session, error) {
	return open(options, func(env *C.ortx_environment, folder *C.char, o *C.ortx_session_options, out **C.ortx_session) *C.ortx_status {
		return C.ortx_session_create_from_memory(env, unsafe.Pointer(unsafe.SliceData(model)), C.size_t(len(model)), folder, o, out)
	})
}

// OpenBorrowed makes a session from a model in memory that is used where it is: it is pinned, and must not change, until
// the session and all values that came from it are gone. Options may be nil.
func OpenBorrowed(model []byte, options *Options) (*Session, error) {
	if len(model) == 0 {
		return OpenBytes(model, options)
	}
	return open(options, func(env *C.ortx_environment, folder *C.char, o *C.ortx_session_options, out **C.ortx_session) *C.ortx_status {
		data := unsafe.SliceData(model)
		return C.ortx_go_session(env, unsafe.Pointer(data), C.size_t(len(model)), C.uintptr_t(pin(data)), folder, o, out)
	})
}

type create func(*C.ortx_environment, *C.char, *C.ortx_session_options, **C.ortx_session) *C.ortx_status

func truth(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

func open(options *Options, create create) (*Session, error) {
	s := &Session{}
	err := with(options, func(env *C.ortx_environment, folder *C.char, o *C.ortx_session_options) *C.ortx_status {
		return create(env, folder, o, &s.handle)
	})
	if err != nil {
		return nil, err
	}
	runtime.SetFinalizer(s, func(s *Session) { s.Close() })
	return s, s.describe()
}

// Optimize writes an optimised model to a file: compiled for this library and processor if the name ends in .ortx, else as
// ONNX. Options may be nil; the setting "rebuild" replaces a compiled model that is stale.
func Optimize(path, file string, options *Options) error {
	from, to := C.CString(path), C.CString(file)
	defer C.free(unsafe.Pointer(from))
	defer C.free(unsafe.Pointer(to))
	return with(options, func(env *C.ortx_environment, _ *C.char, o *C.ortx_session_options) *C.ortx_status {
		return C.ortx_model_optimize(env, from, o, to)
	})
}

// with calls the library with the options as C has them.
func with(options *Options, call func(*C.ortx_environment, *C.char, *C.ortx_session_options) *C.ortx_status) error {
	if options == nil {
		options = &Options{}
	}
	o := options
	defer runtime.KeepAlive(o)
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
	var raw C.ortx_session_options
	raw.struct_size = C.size_t(unsafe.Sizeof(raw))
	raw.threads = C.int32_t(o.Threads)
	raw.isa = C.ortx_isa(o.ISA)
	raw.spin_ns = C.int64_t(max(o.Spin.Nanoseconds(), -1))
	raw.load = C.ortx_load(o.Load)
	raw.keep_denormals = truth(o.KeepDenormals)
	raw.disable_optimization = truth(o.DisableOptimization)
	raw.memory_limit = C.uint64_t(o.MemoryLimit)
	raw.devices = (*C.ortx_device_choice)(array(len(o.Devices), unsafe.Sizeof(C.ortx_device_choice{})))
	raw.device_count = C.size_t(len(o.Devices))
	for i, d := range o.Devices {
		unsafe.Slice(raw.devices, len(o.Devices))[i] = C.ortx_device_choice{name: text(d.Name), required: truth(d.Required)}
	}
	raw.settings = (*C.ortx_setting)(array(len(o.Settings), unsafe.Sizeof(C.ortx_setting{})))
	raw.setting_count = C.size_t(len(o.Settings))
	i := 0
	for key, value := range o.Settings {
		unsafe.Slice(raw.settings, len(o.Settings))[i] = C.ortx_setting{key: text(key), value: text(value)}
		i++
	}
	if o.Pool != nil {
		if o.Pool.Parallel == nil {
			return invalid("the thread pool has no Parallel")
		}
		pool := (*C.ortx_thread_pool)(array(1, unsafe.Sizeof(C.ortx_thread_pool{})))
		pool.struct_size = C.size_t(unsafe.Sizeof(*pool))
		pool.width = C.size_t(max(o.Pool.Width, 0))
		// The session releases it, also where it cannot be made.
		C.ortx_go_pool(pool, C.uintptr_t(cgo.NewHandle(o.Pool)))
		raw.pool = pool
	}
	var environment *C.ortx_environment
	if o.Environment != nil {
		environment = o.Environment.handle
	}
	var folder *C.char
	if o.Folder != "" {
		folder = text(o.Folder)
	}
	return check(call(environment, folder, &raw))
}

// Close ends the session; runs that go on must be over. Bindings and values live on. Closing twice does nothing.
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

// Overridable inputs have a default; their indices follow those of Inputs, and RunNamed may set them.
func (s *Session) Overridable() []IOInfo { return s.overridable }

// get is what the library answers through the place it is given.
func get[T any](of func(*T) *C.ortx_status) (T, error) {
	var answer T
	err := check(of(&answer))
	return answer, err
}

// all calls one for each of what count counts.
func all(count func(*C.size_t) *C.ortx_status, one func(C.size_t) error) error {
	n, err := get(count)
	for i := C.size_t(0); i < n && err == nil; i++ {
		err = one(i)
	}
	return err
}

func (s *Session) describe() error {
	input := func(to *[]IOInfo) func(C.size_t) error {
		first := C.size_t(len(s.inputs))
		return func(i C.size_t) error {
			return describeTo(to, func(name **C.char) *C.ortx_status { return C.ortx_session_input_name(s.handle, first+i, name) },
				func(kind **C.ortx_type) *C.ortx_status { return C.ortx_session_input_type(s.handle, first+i, kind) })
		}
	}
	output := func(i C.size_t) error {
		return describeTo(&s.outputs, func(name **C.char) *C.ortx_status { return C.ortx_session_output_name(s.handle, i, name) },
			func(kind **C.ortx_type) *C.ortx_status { return C.ortx_session_output_type(s.handle, i, kind) })
	}
	err := all(func(n *C.size_t) *C.ortx_status { return C.ortx_session_input_count(s.handle, n) }, input(&s.inputs))
	if err != nil {
		return err
	}
	return errors.Join(
		all(func(n *C.size_t) *C.ortx_status { return C.ortx_session_overridable_count(s.handle, n) }, input(&s.overridable)),
		all(func(n *C.size_t) *C.ortx_status { return C.ortx_session_output_count(s.handle, n) }, output))
}

func describeTo(list *[]IOInfo, nameOf func(**C.char) *C.ortx_status, typeOf func(**C.ortx_type) *C.ortx_status) error {
	name, e1 := get(nameOf)
	kind, e2 := get(typeOf)
	if err := errors.Join(e1, e2); err != nil {
		return err
	}
	info, err := describe(kind)
	if err == nil {
		*list = append(*list, IOInfo{C.GoString(name), *info})
	}
	return err
}

func describe(of *C.ortx_type) (*Type, error) {
	var kind C.ortx_kind
	var dtype C.ortx_dtype
	var rank C.int64_t
	var element *C.ortx_type
	err := errors.Join(check(C.ortx_type_kind(of, &kind)), check(C.ortx_type_dtype(of, &dtype)),
		check(C.ortx_type_rank(of, &rank)), check(C.ortx_type_element(of, &element)))
	if err != nil {
		return nil, err
	}
	info := &Type{Kind: Kind(kind), DType: DType(dtype)}
	if element != nil {
		if info.Element, err = describe(element); err != nil {
			return nil, err
		}
	}
	if rank >= 0 {
		info.Shape, info.Symbols = make([]int64, rank), make([]string, rank)
	}
	for i := range info.Shape {
		var size C.int64_t
		var symbol *C.char
		if err := check(C.ortx_type_dim(of, C.size_t(i), &size, &symbol)); err != nil {
			return nil, err
		}
		info.Shape[i] = int64(size)
		if symbol != nil {
			info.Symbols[i] = C.GoString(symbol)
		}
	}
	return info, nil
}

// InputIndex is the place of an input in the model's order.
func (s *Session) InputIndex(name string) (int, error) {
	return s.index(name, func(text *C.char, index *C.size_t) *C.ortx_status {
		return C.ortx_session_input_index(s.handle, text, index)
	})
}

// OutputIndex is the place of an output in the model's order.
func (s *Session) OutputIndex(name string) (int, error) {
	return s.index(name, func(text *C.char, index *C.size_t) *C.ortx_status {
		return C.ortx_session_output_index(s.handle, text, index)
	})
}

func (s *Session) index(name string, of func(*C.char, *C.size_t) *C.ortx_status) (int, error) {
	defer runtime.KeepAlive(s)
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	index, err := get(func(index *C.size_t) *C.ortx_status { return of(text, index) })
	return int(index), err
}

// Memory is how many bytes the session's tensors take now, outputs that live included, and the most they took at once.
func (s *Session) Memory() (used, peak uint64, err error) {
	defer runtime.KeepAlive(s)
	var most C.uint64_t
	now, err := get(func(used *C.uint64_t) *C.ortx_status { return C.ortx_session_memory(s.handle, used, &most) })
	return uint64(now), uint64(most), err
}

// Trim gives memory back that is kept for coming runs.
func (s *Session) Trim() error {
	defer runtime.KeepAlive(s)
	return check(C.ortx_session_trim(s.handle))
}

// Metadata is what a model says of itself, "" and 0 where it says nothing, and how the session runs it.
type Metadata struct {
	ProducerName, ProducerVersion, GraphName, Domain, Doc string
	// ModelVersion is the author's, IRVersion that of the file format.
	ModelVersion, IRVersion int64
	// Opsets has the versions of the operator sets by domain, "" for ONNX's own.
	Opsets map[string]int64
	// Properties are the model's key/value pairs.
	Properties map[string]string
	// Threads that work on a run.
	Threads int
	// ISA is the level of instructions used.
	ISA ISA
	// Warnings are what the caller should hear of: preferred devices that cannot be used, defaults
	// that cannot be overridden.
	Warnings []string
}

// Metadata tells what the model says of itself.
func (s *Session) Metadata() (*Metadata, error) {
	defer runtime.KeepAlive(s)
	m := &Metadata{Opsets: map[string]int64{}, Properties: map[string]string{}}
	texts := map[C.ortx_text]*string{
		C.ORTX_TEXT_PRODUCER_NAME: &m.ProducerName, C.ORTX_TEXT_PRODUCER_VERSION: &m.ProducerVersion,
		C.ORTX_TEXT_GRAPH_NAME: &m.GraphName, C.ORTX_TEXT_DOMAIN: &m.Domain, C.ORTX_TEXT_DOC: &m.Doc,
	}
	for which, to := range texts {
		text, err := get(func(text **C.char) *C.ortx_status { return C.ortx_session_text(s.handle, which, text) })
		if err != nil {
			return nil, err
		}
		*to = C.GoString(text)
	}
	version, e1 := get(func(v *C.int64_t) *C.ortx_status { return C.ortx_session_model_version(s.handle, v) })
	ir, e2 := get(func(v *C.int64_t) *C.ortx_status { return C.ortx_session_ir_version(s.handle, v) })
	threads, e3 := get(func(n *C.int32_t) *C.ortx_status { return C.ortx_session_threads(s.handle, n) })
	isa, e4 := get(func(isa *C.ortx_isa) *C.ortx_status { return C.ortx_session_isa(s.handle, isa) })
	m.ModelVersion, m.IRVersion, m.Threads, m.ISA = int64(version), int64(ir), int(threads), ISA(isa)
	opset := func(i C.size_t) error {
		var domain *C.char
		version, err := get(func(v *C.int64_t) *C.ortx_status { return C.ortx_session_opset(s.handle, i, &domain, v) })
		if err == nil {
			m.Opsets[C.GoString(domain)] = int64(version)
		}
		return err
	}
	property := func(i C.size_t) error {
		var key *C.char
		value, err := get(func(value **C.char) *C.ortx_status { return C.ortx_session_property(s.handle, i, &key, value) })
		if err == nil {
			m.Properties[C.GoString(key)] = C.GoString(value)
		}
		return err
	}
	warning := func(i C.size_t) error {
		text, err := get(func(text **C.char) *C.ortx_status { return C.ortx_session_warning(s.handle, i, text) })
		if err == nil {
			m.Warnings = append(m.Warnings, C.GoString(text))
		}
		return err
	}
	err := errors.Join(e1, e2, e3, e4,
		all(func(n *C.size_t) *C.ortx_status { return C.ortx_session_opset_count(s.handle, n) }, opset),
		all(func(n *C.size_t) *C.ortx_status { return C.ortx_session_property_count(s.handle, n) }, property),
		all(func(n *C.size_t) *C.ortx_status { return C.ortx_session_warning_count(s.handle, n) }, warning))
	if err != nil {
		return nil, err
	}
	return m, nil
}
