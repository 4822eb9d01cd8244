// Sessions, their options, runs and bindings.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;

namespace Ortx
{
    /// <summary>A device that a session may use before the processor.</summary>
    public struct DeviceChoice
    {
        /// <summary>The device's name, as OrtxEnvironment.Devices tells it.</summary>
        public string Name;
        /// <summary>It is an error if the device is not there or cannot run an operator.</summary>
        public bool Required;
    }

    /// <summary>A program's own threads, for sessions to run on.</summary>
    public interface IThreadPool
    {
        /// <summary>How many workers there are, the calling thread included.</summary>
        int Width { get; }
        /// <summary>Calls task(worker, index) once for each index below count, in any order, and returns when all these calls
        /// have. No two calls at one time have the same worker, below Width, within one loop. Must not throw.</summary>
        void Parallel(long count, Action<long, long> task);
    }

    /// <summary>How a session is made; see ortx_session_options in ortx.h.</summary>
    public sealed class SessionOptions
    {
        /// <summary>Threads that work on one run, the calling one included; 0: as many as the process may use cores.</summary>
        public int Threads;
        /// <summary>The highest level of instructions to use.</summary>
        public Isa Isa;
        /// <summary>How long idle threads spin before they sleep, in nanoseconds; 0: the default, -1: not at all.</summary>
        public long SpinNs;
        /// <summary>Devices in order of preference, before the processor.</summary>
        public IList<DeviceChoice> Devices = new List<DeviceChoice>();
        /// <summary>How a model file comes into memory.</summary>
        public Load Load;
        /// <summary>Denormal numbers count as they are.</summary>
        public bool KeepDenormals;
        /// <summary>The graph runs as it stands in the file.</summary>
        public bool DisableOptimization;
        /// <summary>The most bytes the session may take; 0: no limit.</summary>
        public ulong MemoryLimit;
        /// <summary>Threads to run on, instead of the session's own.</summary>
        public IThreadPool Pool;
        /// <summary>Further options as text.</summary>
        public IDictionary<string, string> Settings = new Dictionary<string, string>();
        /// <summary>Shares an environment between sessions.</summary>
        public OrtxEnvironment Environment;
        /// <summary>For a model in memory: the folder with the files that it keeps tensors in.</summary>
        public string Folder;

        // Kept for as long as the library may call them.
        private static readonly Native.Parallel parallel = (user, count, task, context) =>
        {
            var pool = (IThreadPool)GCHandle.FromIntPtr(user).Target;
            var call = (Native.Task)Marshal.GetDelegateForFunctionPointer(task, typeof(Native.Task));
            pool.Parallel((long)count, (worker, index) => call(context, Native.Size(worker), Native.Size(index)));
        };

        /// <summary>Calls `create` with the environment and the structure, which live until it returns.</summary>
        internal SessionHandle With(Session.Create create)
        {
            var pins = new List<GCHandle>();
            using (var held = new Held())
            {
                try
                {
                    var devices = Devices.Select(d => new Native.DeviceChoice { Name = Pin(pins, Native.Bytes(d.Name)), Required = d.Required ? 1 : 0 }).ToArray();
                    var settings = Settings.Select(s => new Native.Setting { Key = Pin(pins, Native.Bytes(s.Key)), Value = Pin(pins, Native.Bytes(s.Value)) }).ToArray();
                    var raw = new Native.SessionOptions
                    {
                        StructSize = (UIntPtr)Marshal.SizeOf(typeof(Native.SessionOptions)),
                        Threads = Threads,
                        Isa = (int)Isa,
                        SpinNs = SpinNs,
                        Devices = Pin(pins, devices),
                        DeviceCount = (UIntPtr)devices.Length,
                        Load = (int)Load,
                        KeepDenormals = KeepDenormals ? 1 : 0,
                        DisableOptimization = DisableOptimization ? 1 : 0,
                        MemoryLimit = MemoryLimit,
                        Settings = Pin(pins, settings),
                        SettingCount = (UIntPtr)settings.Length
                    };
                    var environment = held.Add(Environment == null ? null : Environment.Handle);
                    SessionHandle session;
                    if (Pool == null)
                    {
                        Native.Check(create(environment, Native.Bytes(Folder), ref raw, out session));
                        return session;
                    }
                    var pool = new Native.ThreadPool
                    {
                        StructSize = (UIntPtr)Marshal.SizeOf(typeof(Native.ThreadPool)),
                        Width = Native.Size(Pool.Width),
                        // The session releases it, also where it cannot be made.
                        User = GCHandle.ToIntPtr(GCHandle.Alloc(Pool)),
                        Parallel = parallel,
                        Release = Native.Free
                    };
                    raw.Pool = Marshal.AllocHGlobal(Marshal.SizeOf(typeof(Native.ThreadPool)));
                    try
                    {
                        Marshal.StructureToPtr(pool, raw.Pool, false);
                        Native.Check(create(environment, Native.Bytes(Folder), ref raw, out session));
                        return session;
                    }
                    finally
                    {
                        Marshal.FreeHGlobal(raw.Pool);
                    }
                }
                finally
                {
                    foreach (var p in pins) p.Free();
                }
            }
        }
        private static IntPtr Pin(List<GCHandle> pins, Array array)
        {
            if (array == null || array.Length == 0) return IntPtr.Zero;
            var pin = GCHandle.Alloc(array, GCHandleType.Pinned);
            pins.Add(pin);
            return pin.AddrOfPinnedObject();
        }
    }

    /// <summary>How one run goes.</summary>
    public sealed class RunOptions
    {
        /// <summary>Stops the run: it throws OrtxException with Code.Cancelled.</summary>
        public CancelToken Cancel;
        /// <summary>Stops the run: it throws OperationCanceledException.</summary>
        public CancellationToken CancellationToken;
        /// <summary>How long the run may take; zero: as long as it likes.</summary>
        public TimeSpan Timeout;

        internal delegate IntPtr Call(ref Native.RunOptions options);

        /// <summary>Calls `run` with the structure of `options`, which may be null.</summary>
        internal static void With(RunOptions options, Call run)
        {
            var raw = new Native.RunOptions { StructSize = (UIntPtr)Marshal.SizeOf(typeof(Native.RunOptions)) };
            if (options == null)
            {
                Native.Check(run(ref raw));
                return;
            }
            raw.TimeoutNs = (ulong)Math.Max(options.Timeout.Ticks, 0) * 100;
            if (!options.CancellationToken.CanBeCanceled)
            {
                using (var held = new Held())
                {
                    raw.CancelToken = held.Add(options.Cancel == null ? null : options.Cancel.Handle);
                    Native.Check(run(ref raw));
                }
                return;
            }
            if (options.Cancel != null) throw new ArgumentException("a run has a CancelToken or a CancellationToken, not both");
            using (var token = new CancelToken())
            using (options.CancellationToken.Register(token.Cancel))
            using (var held = new Held())
            {
                raw.CancelToken = held.Add(token.Handle);
                try
                {
                    Native.Check(run(ref raw));
                }
                catch (OrtxException e) when (e.Code == Code.Cancelled && options.CancellationToken.IsCancellationRequested)
                {
                    throw new OperationCanceledException(e.Message, e, options.CancellationToken);
                }
            }
        }
    }

    /// <summary>What is known of a value before the model runs.</summary>
    public sealed class TypeInfo
    {
        /// <summary>What it is; Unknown where the model does not tell.</summary>
        public Kind Kind { get; private set; }
        /// <summary>A tensor's element type, or the type of a map's keys.</summary>
        public DType DType { get; private set; }
        /// <summary>A tensor's sizes, -1 where they depend on the run; null where not even the rank is known.</summary>
        public IReadOnlyList<long> Shape { get; private set; }
        /// <summary>The model's names of the sizes that depend on the run, null elsewhere.</summary>
        public IReadOnlyList<string> Symbols { get; private set; }
        /// <summary>Of what a sequence or optional holds, or of a map's values; else null.</summary>
        public TypeInfo Element { get; private set; }

        internal TypeInfo(IntPtr type)
        {
            Kind kind;
            DType dtype;
            long rank;
            IntPtr element;
            Native.Check(Native.ortx_type_kind(type, out kind));
            Native.Check(Native.ortx_type_dtype(type, out dtype));
            Native.Check(Native.ortx_type_rank(type, out rank));
            Native.Check(Native.ortx_type_element(type, out element));
            Kind = kind;
            DType = dtype;
            if (element != IntPtr.Zero) Element = new TypeInfo(element);
            if (rank < 0) return;
            var shape = new long[rank];
            var symbols = new string[rank];
            for (int i = 0; i < rank; i++)
            {
                IntPtr symbol;
                Native.Check(Native.ortx_type_dim(type, Native.Size(i), out shape[i], out symbol));
                symbols[i] = Native.Text(symbol);
            }
            Shape = shape;
            Symbols = symbols;
        }
    }

    /// <summary>An input or output of a model.</summary>
    public sealed class IoInfo
    {
        /// <summary>Its name.</summary>
        public string Name { get; internal set; }
        /// <summary>What is known of its values.</summary>
        public TypeInfo Type { get; internal set; }
    }

    /// <summary>A model, ready to run by any number of threads at once.</summary>
    public sealed class Session : IDisposable
    {
        internal readonly SessionHandle Handle;
        /// <summary>The inputs in the model's order.</summary>
        public IReadOnlyList<IoInfo> Inputs { get; private set; }
        /// <summary>Inputs that have a default; their indices follow those of Inputs, and a run by name may set them.</summary>
        public IReadOnlyList<IoInfo> Overridable { get; private set; }
        /// <summary>The outputs in the model's order.</summary>
        public IReadOnlyList<IoInfo> Outputs { get; private set; }

        internal delegate IntPtr Create(IntPtr environment, byte[] folder, ref Native.SessionOptions options, out SessionHandle session);
        private delegate IntPtr NameOf(SessionHandle session, UIntPtr index, out IntPtr name);

        /// <summary>Opens a model file.</summary>
        public Session(string path, SessionOptions options = null)
            : this(options, (IntPtr e, byte[] folder, ref Native.SessionOptions o, out SessionHandle s) =>
                  Native.ortx_session_create_from_file(e, Native.Bytes(path), ref o, out s))
        { }
        /// <summary>Writes an optimised model to a file: compiled for this library and processor if the name ends in .ortx, else
        /// as ONNX. The setting "rebuild" replaces a compiled model that is stale.</summary>
        public static void Optimize(string path, string file, SessionOptions options = null)
        {
            Library.CheckAbi();
            (options ?? new SessionOptions()).With((IntPtr e, byte[] folder, ref Native.SessionOptions o, out SessionHandle s) =>
            {
                s = null;
                return Native.ortx_model_optimize(e, Native.Bytes(path), ref o, Native.Bytes(file));
            });
        }
        /// <summary>Opens a model in memory, which is copied.</summary>
        public Session(byte[] model, SessionOptions options = null)
            : this(options, (IntPtr e, byte[] folder, ref Native.SessionOptions o, out SessionHandle s) =>
                  Native.ortx_session_create_from_memory(e, model, Native.Size(model.Length), folder, ref o, out s))
        { }
        /// <summary>Opens a model in memory, which stays pinned and must not change: weights are read from there.</summary>
        public static Session Borrow(byte[] model, SessionOptions options = null)
        {
            return new Session(options, (IntPtr e, byte[] folder, ref Native.SessionOptions o, out SessionHandle s) =>
            {
                var pin = GCHandle.Alloc(model, GCHandleType.Pinned);
                return Native.ortx_session_create_from_borrowed_memory(e, pin.AddrOfPinnedObject(), Native.Size(model.Length),
                    Native.Free, GCHandle.ToIntPtr(pin), folder, ref o, out s);
            });
        }

        private Session(SessionOptions options, Create create)
        {
            Library.CheckAbi();
            Handle = (options ?? new SessionOptions()).With(create);
            var inputs = (uint)Get<UIntPtr>(Native.ortx_session_input_count);
            var open = (uint)Get<UIntPtr>(Native.ortx_session_overridable_count);
            Inputs = Describe(0, inputs, Native.ortx_session_input_name, Native.ortx_session_input_type);
            Overridable = Describe(inputs, open, Native.ortx_session_input_name, Native.ortx_session_input_type);
            var outputs = (uint)Get<UIntPtr>(Native.ortx_session_output_count);
            Outputs = Describe(0, outputs, Native.ortx_session_output_name, Native.ortx_session_output_type);
        }
        private IReadOnlyList<IoInfo> Describe(uint first, uint count, NameOf nameOf, NameOf typeOf)
        {
            return Enumerable.Range(0, (int)count).Select(i =>
            {
                IntPtr name, type;
                Native.Check(nameOf(Handle, Native.Size(first + i), out name));
                Native.Check(typeOf(Handle, Native.Size(first + i), out type));
                return new IoInfo { Name = Native.Text(name), Type = new TypeInfo(type) };
            }).ToList();
        }

        private delegate IntPtr Getter<T>(SessionHandle session, out T value);
        private delegate IntPtr IndexOf(SessionHandle session, byte[] name, out UIntPtr index);

        // What the library answers through its last parameter.
        private T Get<T>(Getter<T> of)
        {
            T value;
            Native.Check(of(Handle, out value));
            return value;
        }
        private int Index(IndexOf of, string name)
        {
            return (int)Get((SessionHandle s, out UIntPtr index) => of(s, Native.Bytes(name), out index));
        }
        // One by one: what `count` counts.
        private IEnumerable<T> All<T>(Getter<UIntPtr> count, Func<UIntPtr, T> at)
        {
            return Enumerable.Range(0, (int)Get(count)).Select(i => at(Native.Size(i)));
        }

        /// <summary>The place of an input in the model's order.</summary>
        public int InputIndex(string name) { return Index(Native.ortx_session_input_index, name); }
        /// <summary>The place of an output in the model's order.</summary>
        public int OutputIndex(string name) { return Index(Native.ortx_session_output_index, name); }
        /// <summary>Threads that work on a run, the calling one included.</summary>
        public int Threads { get { return Get<int>(Native.ortx_session_threads); } }
        /// <summary>The level of instructions that the session uses.</summary>
        public Isa Isa { get { return Get<Isa>(Native.ortx_session_isa); } }
        /// <summary>The bytes that its tensors take now, outputs that live included.</summary>
        public ulong MemoryUsed { get { ulong peak; return Get((SessionHandle s, out ulong used) => Native.ortx_session_memory(s, out used, out peak)); } }
        /// <summary>The most bytes that they took at once.</summary>
        public ulong MemoryPeak { get { ulong used; return Get((SessionHandle s, out ulong peak) => Native.ortx_session_memory(s, out used, out peak)); } }
        /// <summary>Gives memory back that is kept for coming runs.</summary>
        public void Trim() { Native.Check(Native.ortx_session_trim(Handle)); }
        /// <summary>One of the texts that the model carries; "" where it says nothing.</summary>
        public string Text(ModelText which)
        {
            return Native.Text(Get((SessionHandle s, out IntPtr text) => Native.ortx_session_text(s, which, out text)));
        }
        /// <summary>The version that the model's author gave it.</summary>
        public long ModelVersion { get { return Get<long>(Native.ortx_session_model_version); } }
        /// <summary>The version of the ONNX file format.</summary>
        public long IrVersion { get { return Get<long>(Native.ortx_session_ir_version); } }
        /// <summary>The operator sets that the model imports: versions by domain.</summary>
        public IReadOnlyDictionary<string, long> Opsets
        {
            get
            {
                var all = new Dictionary<string, long>();
                foreach (var pair in All(Native.ortx_session_opset_count, i =>
                {
                    IntPtr domain;
                    long version;
                    Native.Check(Native.ortx_session_opset(Handle, i, out domain, out version));
                    return new { Key = Native.Text(domain), Value = version };
                })) all[pair.Key] = pair.Value;
                return all;
            }
        }
        /// <summary>The model's key/value pairs.</summary>
        public IReadOnlyDictionary<string, string> Properties
        {
            get
            {
                var all = new Dictionary<string, string>();
                foreach (var pair in All(Native.ortx_session_property_count, i =>
                {
                    IntPtr key, value;
                    Native.Check(Native.ortx_session_property(Handle, i, out key, out value));
                    return new { Key = Native.Text(key), Value = Native.Text(value) };
                })) all[pair.Key] = pair.Value;
                return all;
            }
        }
        /// <summary>What the caller should hear of: preferred devices that cannot be used, defaults that cannot be overridden.</summary>
        public IReadOnlyList<string> Warnings
        {
            get
            {
                return All(Native.ortx_session_warning_count,
                    i => Native.Text(Get((SessionHandle s, out IntPtr text) => Native.ortx_session_warning(s, i, out text)))).ToList();
            }
        }

        /// <summary>Runs the model on all its inputs, in its order; gives all its outputs.</summary>
        public Value[] Run(params Value[] inputs) { return Run((RunOptions)null, inputs); }

        /// <summary>The same with options, which may be null.</summary>
        public Value[] Run(RunOptions options, params Value[] inputs)
        {
            var outputs = new Value[Outputs.Count];
            Run(options, null, inputs, null, outputs);
            return outputs;
        }
        /// <summary>Runs the model into tensors that the caller has; null ones are replaced with new values.</summary>
        public void RunInto(Value[] inputs, Value[] outputs, RunOptions options = null)
        {
            Run(options, null, inputs, null, outputs);
        }
        /// <summary>Runs the model on inputs by name, for these outputs only, or all for null.</summary>
        public IDictionary<string, Value> Run(IDictionary<string, Value> inputs, IEnumerable<string> outputs = null, RunOptions options = null)
        {
            var names = (outputs ?? Outputs.Select(o => o.Name)).ToArray();
            var results = new Value[names.Length];
            Run(options, inputs.Keys.Select(n => Native.Size(InputIndex(n))).ToArray(), inputs.Values.ToArray(),
                names.Select(n => Native.Size(OutputIndex(n))).ToArray(), results);
            return names.Zip(results, (n, v) => new { n, v }).ToDictionary(p => p.n, p => p.v);
        }

        private void Run(RunOptions options, UIntPtr[] inputIndices, Value[] inputs, UIntPtr[] outputIndices, Value[] outputs)
        {
            // Arrays of SafeHandles are not marshalled: each is held by hand while the run goes on.
            using (var held = new Held())
            {
                var ins = inputs.Select(v => held.Add(Value.HandleOf(v))).ToArray();
                var outs = outputs.Select(v => held.Add(Value.HandleOf(v))).ToArray();
                RunOptions.With(options, (ref Native.RunOptions o) => Native.ortx_session_run(Handle, ref o, inputIndices, ins,
                    Native.Size(ins.Length), outputIndices, outs, Native.Size(outs.Length)));
                for (int i = 0; i < outs.Length; i++)
                    if (outputs[i] == null) outputs[i] = Value.Wrap(new ValueHandle(outs[i]));
            }
        }
        /// <summary>Ends the session; bindings and values live on.</summary>
        public void Dispose() { Handle.Dispose(); }
    }

    /// <summary>Inputs and outputs set once, for repeated runs that allocate nothing. For one thread at a time.</summary>
    public sealed class Binding : IDisposable
    {
        private readonly BindingHandle handle;
        /// <summary>A binding of a session.</summary>
        public Binding(Session session) { Native.Check(Native.ortx_binding_create(session.Handle, out handle)); }

        /// <summary>Sets an input for all runs to come; what is written to its memory between runs is seen by them.</summary>
        public void SetInput(int index, Value value)
        {
            if (value == null) throw new ArgumentNullException("value");
            Native.Check(Native.ortx_binding_set_input(handle, Native.Size(index), value.Handle));
        }
        /// <summary>Sets the tensor that runs write an output to; null: memory of the binding's own.</summary>
        public void SetOutput(int index, Tensor tensor)
        {
            using (var held = new Held())
                Native.Check(Native.ortx_binding_set_output(handle, Native.Size(index), held.Add(Value.HandleOf(tensor))));
        }
        /// <summary>Runs the model on the inputs set. Options may be null.</summary>
        public void Run(RunOptions options = null)
        {
            RunOptions.With(options, (ref Native.RunOptions o) => Native.ortx_binding_run(handle, ref o));
        }
        /// <summary>An output of the last run.</summary>
        public Value Output(int index)
        {
            ValueHandle value;
            Native.Check(Native.ortx_binding_output(handle, Native.Size(index), out value));
            return Value.Wrap(value);
        }
        /// <summary>Ends the binding.</summary>
        public void Dispose() { handle.Dispose(); }
    }
}
