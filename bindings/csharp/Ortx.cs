// ortx for .NET: P/Invoke over libortx, handles as SafeHandles, statuses as exceptions. C# 7 and .NET Standard 2.0 or Mono.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Ortx
{
    /// <summary>What went wrong; the numbers are those of ortx.h.</summary>
    public enum Code
    {
        Ok = 0, InvalidArgument, InvalidModel, Unsupported, NotFound, Io, OutOfMemory, RunFailed, Cancelled, Device, Internal
    }

    /// <summary>An element type; the numbers are those of ONNX.</summary>
    public enum DType
    {
        Undefined = 0, Float32, UInt8, Int8, UInt16, Int16, Int32, Int64, String, Bool, Float16, Float64, UInt32, UInt64,
        Complex64, Complex128, BFloat16
    }

    /// <summary>A call that failed.</summary>
    public sealed class OrtxException : Exception
    {
        /// <summary>What went wrong.</summary>
        public Code Code { get; }
        /// <summary>The places that the error passed, outermost first.</summary>
        public IReadOnlyList<string> Contexts { get; }

        internal OrtxException(Code code, string text, IReadOnlyList<string> contexts) : base(text)
        {
            Code = code;
            Contexts = contexts;
        }
    }

    /// <summary>The functions of ortx.h, and what they need.</summary>
    internal static class Native
    {
        private const string Lib = "libortx.so.0";
        internal const uint AbiVersion = 1;

        [StructLayout(LayoutKind.Sequential)]
        internal struct Setting
        {
            public IntPtr Key, Value;
        }
        [StructLayout(LayoutKind.Sequential)]
        internal struct SessionOptions
        {
            public UIntPtr StructSize;
            public int Threads, Isa;
            public long SpinNs;
            public IntPtr Devices;
            public UIntPtr DeviceCount;
            public int Load, KeepDenormals, DisableOptimization, Reserved;
            public ulong MemoryLimit;
            public IntPtr Pool, Settings;
            public UIntPtr SettingCount;
        }
        [StructLayout(LayoutKind.Sequential)]
        internal struct RunOptions
        {
            public UIntPtr StructSize;
            public IntPtr CancelToken;
            public ulong TimeoutNs;
        }
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void Release(IntPtr user);

        [DllImport(Lib)] internal static extern uint ortx_abi_version();
        [DllImport(Lib)] internal static extern IntPtr ortx_version();
        [DllImport(Lib)] internal static extern Code ortx_status_code(IntPtr status);
        [DllImport(Lib)] internal static extern IntPtr ortx_status_text(IntPtr status);
        [DllImport(Lib)] internal static extern UIntPtr ortx_status_context_count(IntPtr status);
        [DllImport(Lib)] internal static extern IntPtr ortx_status_context(IntPtr status, UIntPtr index);
        [DllImport(Lib)] internal static extern void ortx_status_destroy(IntPtr status);
        [DllImport(Lib)] internal static extern IntPtr ortx_dtype_name(DType dtype);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_create_from_file(IntPtr environment, byte[] path, ref SessionOptions options, out SessionHandle session);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_create_from_memory(IntPtr environment, byte[] data, UIntPtr size, byte[] folder, ref SessionOptions options, out SessionHandle session);
        [DllImport(Lib)] internal static extern void ortx_session_destroy(IntPtr session);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_input_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_output_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_input_name(SessionHandle session, UIntPtr index, out IntPtr name);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_output_name(SessionHandle session, UIntPtr index, out IntPtr name);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_run(SessionHandle session, ref RunOptions options, UIntPtr[] inputIndices, IntPtr[] inputs, UIntPtr inputCount, UIntPtr[] outputIndices, [In, Out] IntPtr[] outputs, UIntPtr outputCount);
        [DllImport(Lib)] internal static extern IntPtr ortx_cancel_token_create(out CancelHandle token);
        [DllImport(Lib)] internal static extern IntPtr ortx_cancel_token_cancel(CancelHandle token);
        [DllImport(Lib)] internal static extern void ortx_cancel_token_destroy(IntPtr token);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_from_copy(DType dtype, long[] shape, UIntPtr rank, IntPtr data, UIntPtr size, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_borrowed_mut(DType dtype, long[] shape, UIntPtr rank, IntPtr data, UIntPtr size, Release release, IntPtr user, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_from_strings(long[] shape, UIntPtr rank, IntPtr[] strings, UIntPtr[] lengths, UIntPtr count, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_dtype(ValueHandle tensor, out DType dtype);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_shape(ValueHandle tensor, long[] shape, UIntPtr capacity, out UIntPtr rank);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_count(ValueHandle tensor, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_byte_size(ValueHandle tensor, out UIntPtr size);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_data(ValueHandle tensor, out IntPtr data);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_string(ValueHandle tensor, UIntPtr index, out IntPtr text, out UIntPtr length);
        [DllImport(Lib)] internal static extern void ortx_value_destroy(IntPtr value);

        /// <summary>Throws unless the status is success; frees it.</summary>
        internal static void Check(IntPtr status)
        {
            if (status == IntPtr.Zero) return;
            try
            {
                var contexts = new List<string>();
                var count = (int)ortx_status_context_count(status);
                for (int i = 0; i < count; i++) contexts.Add(Text(ortx_status_context(status, (UIntPtr)i)));
                throw new OrtxException(ortx_status_code(status), Text(ortx_status_text(status)), contexts);
            }
            finally
            {
                ortx_status_destroy(status);
            }
        }

        /// <summary>UTF-8 text that ends with a zero byte.</summary>
        internal static string Text(IntPtr p)
        {
            if (p == IntPtr.Zero) return null;
            int n = 0;
            while (Marshal.ReadByte(p, n) != 0) n++;
            return Text(p, n);
        }
        internal static string Text(IntPtr p, int length)
        {
            var bytes = new byte[length];
            if (length > 0) Marshal.Copy(p, bytes, 0, length);
            return Encoding.UTF8.GetString(bytes);
        }
        internal static byte[] Bytes(string s)
        {
            return Encoding.UTF8.GetBytes(s + "\0");
        }
        internal static UIntPtr Size(long n)
        {
            return (UIntPtr)(ulong)n;
        }
    }

    internal abstract class Handle : SafeHandle
    {
        protected Handle() : base(IntPtr.Zero, true) { }
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
    }
    internal sealed class SessionHandle : Handle
    {
        protected override bool ReleaseHandle() { Native.ortx_session_destroy(handle); return true; }
    }
    internal sealed class CancelHandle : Handle
    {
        protected override bool ReleaseHandle() { Native.ortx_cancel_token_destroy(handle); return true; }
    }
    internal sealed class ValueHandle : Handle
    {
        public ValueHandle() { }
        internal ValueHandle(IntPtr value) { SetHandle(value); }
        protected override bool ReleaseHandle() { Native.ortx_value_destroy(handle); return true; }
    }

    /// <summary>The library.</summary>
    public static class Library
    {
        /// <summary>Its version, such as "0.1.0".</summary>
        public static string Version { get { return Native.Text(Native.ortx_version()); } }

        internal static void CheckAbi()
        {
            uint have = Native.ortx_abi_version();
            if (have != Native.AbiVersion)
                throw new NotSupportedException("libortx has ABI version " + have + ", this needs " + Native.AbiVersion);
        }
    }

    /// <summary>A tensor, in the library's memory or over an array.</summary>
    public sealed class Tensor : IDisposable
    {
        internal readonly ValueHandle Handle;
        internal Tensor(ValueHandle handle) { Handle = handle; }

        // Kept for as long as the library may call it.
        private static readonly Native.Release Unpin = user => GCHandle.FromIntPtr(user).Free();

        /// <summary>A tensor with a copy of an array.</summary>
        public static Tensor Copy<T>(T[] data, params long[] shape) where T : struct
        {
            var pin = GCHandle.Alloc(data, GCHandleType.Pinned);
            try
            {
                ValueHandle tensor;
                Native.Check(Native.ortx_tensor_create_from_copy(DTypeOf(typeof(T)), shape, Native.Size(shape.Length),
                    pin.AddrOfPinnedObject(), Bytes(data), out tensor));
                return new Tensor(tensor);
            }
            finally
            {
                pin.Free();
            }
        }
        /// <summary>A tensor over an array, not copied: it is pinned until the last tensor that shares it is gone.</summary>
        public static Tensor Borrow<T>(T[] data, params long[] shape) where T : struct
        {
            var dtype = DTypeOf(typeof(T));
            var pin = GCHandle.Alloc(data, GCHandleType.Pinned);
            ValueHandle tensor;
            // The library releases the array also where the call fails.
            Native.Check(Native.ortx_tensor_create_borrowed_mut(dtype, shape, Native.Size(shape.Length),
                pin.AddrOfPinnedObject(), Bytes(data), Unpin, GCHandle.ToIntPtr(pin), out tensor));
            return new Tensor(tensor);
        }
        /// <summary>A tensor of strings.</summary>
        public static Tensor Strings(string[] data, params long[] shape)
        {
            var texts = new IntPtr[data.Length];
            var lengths = new UIntPtr[data.Length];
            try
            {
                for (int i = 0; i < data.Length; i++)
                {
                    var bytes = Encoding.UTF8.GetBytes(data[i]);
                    texts[i] = Marshal.AllocHGlobal(bytes.Length + 1);
                    Marshal.Copy(bytes, 0, texts[i], bytes.Length);
                    lengths[i] = Native.Size(bytes.Length);
                }
                ValueHandle tensor;
                Native.Check(Native.ortx_tensor_create_from_strings(shape, Native.Size(shape.Length), texts, lengths,
                    Native.Size(data.Length), out tensor));
                return new Tensor(tensor);
            }
            finally
            {
                foreach (var t in texts) Marshal.FreeHGlobal(t);
            }
        }

        /// <summary>The element type.</summary>
        public DType DType
        {
            get
            {
                DType d;
                Native.Check(Native.ortx_tensor_dtype(Handle, out d));
                return d;
            }
        }
        /// <summary>The sizes, outermost axis first.</summary>
        public long[] Shape
        {
            get
            {
                UIntPtr rank;
                Native.Check(Native.ortx_tensor_shape(Handle, null, UIntPtr.Zero, out rank));
                var shape = new long[(int)rank];
                Native.Check(Native.ortx_tensor_shape(Handle, shape, rank, out rank));
                return shape;
            }
        }
        /// <summary>The number of elements.</summary>
        public int Count
        {
            get
            {
                UIntPtr n;
                Native.Check(Native.ortx_tensor_count(Handle, out n));
                return checked((int)n);
            }
        }
        /// <summary>A copy of the elements, which must be of this type.</summary>
        public T[] ToArray<T>() where T : struct
        {
            if (DTypeOf(typeof(T)) != DType)
                throw new InvalidCastException("the tensor is " + Native.Text(Native.ortx_dtype_name(DType)) + ", not " + typeof(T).Name);
            var result = new T[Count];
            UIntPtr size;
            IntPtr data;
            Native.Check(Native.ortx_tensor_byte_size(Handle, out size));
            Native.Check(Native.ortx_tensor_data(Handle, out data));
            var bytes = new byte[checked((int)size)];
            if (bytes.Length > 0) Marshal.Copy(data, bytes, 0, bytes.Length);
            Buffer.BlockCopy(bytes, 0, result, 0, bytes.Length);
            GC.KeepAlive(this);
            return result;
        }
        /// <summary>A copy of the strings.</summary>
        public string[] ToStrings()
        {
            var result = new string[Count];
            for (int i = 0; i < result.Length; i++)
            {
                IntPtr text;
                UIntPtr length;
                Native.Check(Native.ortx_tensor_string(Handle, Native.Size(i), out text, out length));
                result[i] = Native.Text(text, (int)length);
            }
            GC.KeepAlive(this);
            return result;
        }
        /// <summary>Frees the tensor.</summary>
        public void Dispose() { Handle.Dispose(); }

        private static UIntPtr Bytes<T>(T[] data) where T : struct
        {
            return Native.Size((long)data.Length * Buffer.ByteLength(new T[1]));
        }
        private static DType DTypeOf(Type t)
        {
            if (t == typeof(float)) return DType.Float32;
            if (t == typeof(double)) return DType.Float64;
            if (t == typeof(sbyte)) return DType.Int8;
            if (t == typeof(short)) return DType.Int16;
            if (t == typeof(int)) return DType.Int32;
            if (t == typeof(long)) return DType.Int64;
            if (t == typeof(byte)) return DType.UInt8;
            if (t == typeof(ushort)) return DType.UInt16;
            if (t == typeof(uint)) return DType.UInt32;
            if (t == typeof(ulong)) return DType.UInt64;
            throw new NotSupportedException("tensors hold no " + t.Name);
        }
    }

    /// <summary>Stops runs from another thread.</summary>
    public sealed class CancelToken : IDisposable
    {
        internal readonly CancelHandle Handle;
        /// <summary>A token for as many runs as wanted.</summary>
        public CancelToken() { Native.Check(Native.ortx_cancel_token_create(out Handle)); }
        /// <summary>Asks all runs that have the token to stop.</summary>
        public void Cancel() { Native.Check(Native.ortx_cancel_token_cancel(Handle)); }
        /// <summary>Frees the token.</summary>
        public void Dispose() { Handle.Dispose(); }
    }

    /// <summary>A model, ready to run by any number of threads at once.</summary>
    public sealed class Session : IDisposable
    {
        private readonly SessionHandle handle;
        /// <summary>Names in the model's order.</summary>
        public IReadOnlyList<string> Inputs { get; private set; }
        /// <summary>Names in the model's order.</summary>
        public IReadOnlyList<string> Outputs { get; private set; }

        private delegate IntPtr Create(ref Native.SessionOptions options, out SessionHandle session);
        private delegate IntPtr NameOf(SessionHandle session, UIntPtr index, out IntPtr name);

        /// <summary>Opens a model file. For the settings see ortx_session_options in ortx.h.</summary>
        public Session(string path, int threads = 0, IDictionary<string, string> settings = null)
            : this((ref Native.SessionOptions o, out SessionHandle s) =>
                  Native.ortx_session_create_from_file(IntPtr.Zero, Native.Bytes(path), ref o, out s), threads, settings)
        { }
        /// <summary>Opens a model in memory.</summary>
        public Session(byte[] model, int threads = 0, IDictionary<string, string> settings = null)
            : this((ref Native.SessionOptions o, out SessionHandle s) =>
                  Native.ortx_session_create_from_memory(IntPtr.Zero, model, Native.Size(model.Length), null, ref o, out s), threads, settings)
        { }

        private Session(Create create, int threads, IDictionary<string, string> settings)
        {
            Library.CheckAbi();
            var pins = new List<GCHandle>();
            try
            {
                var list = new List<Native.Setting>();
                foreach (var s in settings ?? new Dictionary<string, string>())
                    list.Add(new Native.Setting { Key = Pin(pins, Native.Bytes(s.Key)), Value = Pin(pins, Native.Bytes(s.Value)) });
                var options = new Native.SessionOptions
                {
                    StructSize = (UIntPtr)Marshal.SizeOf(typeof(Native.SessionOptions)),
                    Threads = threads,
                    Settings = list.Count > 0 ? Pin(pins, list.ToArray()) : IntPtr.Zero,
                    SettingCount = (UIntPtr)list.Count
                };
                Native.Check(create(ref options, out handle));
            }
            finally
            {
                foreach (var p in pins) p.Free();
            }
            UIntPtr n;
            Native.Check(Native.ortx_session_input_count(handle, out n));
            Inputs = Names(n, Native.ortx_session_input_name);
            Native.Check(Native.ortx_session_output_count(handle, out n));
            Outputs = Names(n, Native.ortx_session_output_name);
        }

        private static IntPtr Pin(List<GCHandle> pins, object o)
        {
            var pin = GCHandle.Alloc(o, GCHandleType.Pinned);
            pins.Add(pin);
            return pin.AddrOfPinnedObject();
        }
        private IReadOnlyList<string> Names(UIntPtr count, NameOf nameOf)
        {
            var names = new List<string>();
            for (uint i = 0; i < (uint)count; i++)
            {
                IntPtr name;
                Native.Check(nameOf(handle, (UIntPtr)i, out name));
                names.Add(Native.Text(name));
            }
            return names;
        }

        /// <summary>Runs the model on all its inputs, in its order; gives all its outputs.</summary>
        public Tensor[] Run(params Tensor[] inputs) { return Run(null, TimeSpan.Zero, inputs); }

        /// <summary>The same; stops when the token is cancelled, or after the time, if it is not zero.</summary>
        public Tensor[] Run(CancelToken cancel, TimeSpan timeout, params Tensor[] inputs)
        {
            var held = new List<SafeHandle>();
            var ins = new IntPtr[inputs.Length];
            var outs = new IntPtr[Outputs.Count];
            var options = new Native.RunOptions
            {
                StructSize = (UIntPtr)Marshal.SizeOf(typeof(Native.RunOptions)),
                TimeoutNs = (ulong)Math.Max(timeout.Ticks, 0) * 100
            };
            try
            {
                // Arrays of SafeHandles are not marshalled: each is held by hand while the run goes on.
                for (int i = 0; i < ins.Length; i++) ins[i] = inputs[i] == null ? IntPtr.Zero : Hold(held, inputs[i].Handle);
                if (cancel != null) options.CancelToken = Hold(held, cancel.Handle);
                Native.Check(Native.ortx_session_run(handle, ref options, null, ins, Native.Size(ins.Length), null, outs,
                    Native.Size(outs.Length)));
            }
            finally
            {
                foreach (var h in held) h.DangerousRelease();
            }
            var results = new Tensor[outs.Length];
            for (int i = 0; i < outs.Length; i++) results[i] = new Tensor(new ValueHandle(outs[i]));
            return results;
        }

        private static IntPtr Hold(List<SafeHandle> held, SafeHandle h)
        {
            bool added = false;
            h.DangerousAddRef(ref added);
            held.Add(h);
            return h.DangerousGetHandle();
        }
        /// <summary>Ends the session.</summary>
        public void Dispose() { handle.Dispose(); }
    }
}
