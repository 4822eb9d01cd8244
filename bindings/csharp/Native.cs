// The functions of ortx.h as P/Invoke, and what they need: handles, structures, texts, statuses.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Ortx
{
    internal static class Native
    {
        private const string Lib = "libortx.so.0";
        internal const uint AbiVersion = 1;

        [StructLayout(LayoutKind.Sequential)]
        internal struct DeviceChoice
        {
            public IntPtr Name;
            public int Required, Reserved;
        }
        [StructLayout(LayoutKind.Sequential)]
        internal struct ThreadPool
        {
            public UIntPtr StructSize, Width;
            public IntPtr User;
            public Parallel Parallel;
            public Release Release;
        }
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
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void Task(IntPtr context, UIntPtr worker, UIntPtr index);
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void Parallel(IntPtr user, UIntPtr count, IntPtr task, IntPtr context);

        [DllImport(Lib)] internal static extern uint ortx_abi_version();
        [DllImport(Lib)] internal static extern IntPtr ortx_version();
        [DllImport(Lib)] internal static extern int ortx_threads_available();
        [DllImport(Lib)] internal static extern Isa ortx_isa_available();
        [DllImport(Lib)] internal static extern IntPtr ortx_isa_name(Isa isa);
        [DllImport(Lib)] internal static extern IntPtr ortx_dtype_name(DType dtype);
        [DllImport(Lib)] internal static extern int ortx_dtype_bits(DType dtype);
        [DllImport(Lib)] internal static extern IntPtr ortx_code_name(Code code);

        [DllImport(Lib)] internal static extern Code ortx_status_code(IntPtr status);
        [DllImport(Lib)] internal static extern IntPtr ortx_status_text(IntPtr status);
        [DllImport(Lib)] internal static extern IntPtr ortx_status_message(IntPtr status);
        [DllImport(Lib)] internal static extern UIntPtr ortx_status_context_count(IntPtr status);
        [DllImport(Lib)] internal static extern IntPtr ortx_status_context(IntPtr status, UIntPtr index);
        [DllImport(Lib)] internal static extern void ortx_status_destroy(IntPtr status);

        [DllImport(Lib)] internal static extern IntPtr ortx_environment_create(out EnvironmentHandle environment);
        [DllImport(Lib)] internal static extern void ortx_environment_destroy(IntPtr environment);
        [DllImport(Lib)] internal static extern IntPtr ortx_environment_device_count(EnvironmentHandle environment, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_environment_device_name(EnvironmentHandle environment, UIntPtr index, out IntPtr name);
        [DllImport(Lib)] internal static extern IntPtr ortx_environment_device_description(EnvironmentHandle environment, UIntPtr index, out IntPtr description);
        [DllImport(Lib)] internal static extern IntPtr ortx_environment_device_type(EnvironmentHandle environment, UIntPtr index, out DeviceType type);
        [DllImport(Lib)] internal static extern IntPtr ortx_environment_device_memory(EnvironmentHandle environment, UIntPtr index, out ulong bytes);

        [DllImport(Lib)] internal static extern IntPtr ortx_model_optimize(IntPtr environment, byte[] path, ref SessionOptions options, byte[] file);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_create_from_file(IntPtr environment, byte[] path, ref SessionOptions options, out SessionHandle session);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_create_from_memory(IntPtr environment, byte[] data, UIntPtr size, byte[] folder, ref SessionOptions options, out SessionHandle session);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_create_from_borrowed_memory(IntPtr environment, IntPtr data, UIntPtr size, Release release, IntPtr user, byte[] folder, ref SessionOptions options, out SessionHandle session);
        [DllImport(Lib)] internal static extern void ortx_session_destroy(IntPtr session);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_input_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_output_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_input_name(SessionHandle session, UIntPtr index, out IntPtr name);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_output_name(SessionHandle session, UIntPtr index, out IntPtr name);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_input_index(SessionHandle session, byte[] name, out UIntPtr index);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_output_index(SessionHandle session, byte[] name, out UIntPtr index);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_input_type(SessionHandle session, UIntPtr index, out IntPtr type);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_output_type(SessionHandle session, UIntPtr index, out IntPtr type);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_overridable_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_memory(SessionHandle session, out ulong used, out ulong peak);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_trim(SessionHandle session);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_threads(SessionHandle session, out int threads);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_isa(SessionHandle session, out Isa isa);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_text(SessionHandle session, ModelText which, out IntPtr text);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_model_version(SessionHandle session, out long version);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_ir_version(SessionHandle session, out long version);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_opset_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_opset(SessionHandle session, UIntPtr index, out IntPtr domain, out long version);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_property_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_property(SessionHandle session, UIntPtr index, out IntPtr key, out IntPtr value);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_warning_count(SessionHandle session, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_warning(SessionHandle session, UIntPtr index, out IntPtr text);
        [DllImport(Lib)] internal static extern IntPtr ortx_session_run(SessionHandle session, ref RunOptions options, UIntPtr[] inputIndices, IntPtr[] inputs, UIntPtr inputCount, UIntPtr[] outputIndices, [In, Out] IntPtr[] outputs, UIntPtr outputCount);

        [DllImport(Lib)] internal static extern IntPtr ortx_type_kind(IntPtr type, out Kind kind);
        [DllImport(Lib)] internal static extern IntPtr ortx_type_dtype(IntPtr type, out DType dtype);
        [DllImport(Lib)] internal static extern IntPtr ortx_type_rank(IntPtr type, out long rank);
        [DllImport(Lib)] internal static extern IntPtr ortx_type_dim(IntPtr type, UIntPtr axis, out long size, out IntPtr symbol);
        [DllImport(Lib)] internal static extern IntPtr ortx_type_element(IntPtr type, out IntPtr element);

        [DllImport(Lib)] internal static extern IntPtr ortx_value_kind(ValueHandle value, out Kind kind);
        [DllImport(Lib)] internal static extern IntPtr ortx_value_clone(ValueHandle value, out ValueHandle copy);
        [DllImport(Lib)] internal static extern void ortx_value_destroy(IntPtr value);
        [DllImport(Lib)] internal static extern IntPtr ortx_sequence_create(IntPtr[] elements, UIntPtr count, out ValueHandle sequence);
        [DllImport(Lib)] internal static extern IntPtr ortx_sequence_count(ValueHandle sequence, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_sequence_get(ValueHandle sequence, UIntPtr index, out ValueHandle element);
        [DllImport(Lib)] internal static extern IntPtr ortx_optional_create(IntPtr element, out ValueHandle optional);
        [DllImport(Lib)] internal static extern IntPtr ortx_optional_get(ValueHandle optional, out ValueHandle element);
        [DllImport(Lib)] internal static extern IntPtr ortx_map_create(ValueHandle keys, ValueHandle values, out ValueHandle map);
        [DllImport(Lib)] internal static extern IntPtr ortx_map_keys(ValueHandle map, out ValueHandle keys);
        [DllImport(Lib)] internal static extern IntPtr ortx_map_values(ValueHandle map, out ValueHandle values);

        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create(DType dtype, long[] shape, UIntPtr rank, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_from_copy(DType dtype, long[] shape, UIntPtr rank, IntPtr data, UIntPtr size, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_borrowed(DType dtype, long[] shape, UIntPtr rank, IntPtr data, UIntPtr size, Release release, IntPtr user, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_borrowed_mut(DType dtype, long[] shape, UIntPtr rank, IntPtr data, UIntPtr size, Release release, IntPtr user, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_create_from_strings(long[] shape, UIntPtr rank, IntPtr[] strings, UIntPtr[] lengths, UIntPtr count, out ValueHandle tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_dtype(ValueHandle tensor, out DType dtype);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_shape(ValueHandle tensor, long[] shape, UIntPtr capacity, out UIntPtr rank);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_count(ValueHandle tensor, out UIntPtr count);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_byte_size(ValueHandle tensor, out UIntPtr size);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_data(ValueHandle tensor, out IntPtr data);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_data_mut(ValueHandle tensor, out IntPtr data);
        [DllImport(Lib)] internal static extern IntPtr ortx_tensor_string(ValueHandle tensor, UIntPtr index, out IntPtr text, out UIntPtr length);

        [DllImport(Lib)] internal static extern IntPtr ortx_cancel_token_create(out CancelHandle token);
        [DllImport(Lib)] internal static extern void ortx_cancel_token_destroy(IntPtr token);
        [DllImport(Lib)] internal static extern IntPtr ortx_cancel_token_cancel(CancelHandle token);
        [DllImport(Lib)] internal static extern IntPtr ortx_cancel_token_reset(CancelHandle token);
        [DllImport(Lib)] internal static extern IntPtr ortx_cancel_token_is_cancelled(CancelHandle token, out int cancelled);

        [DllImport(Lib)] internal static extern IntPtr ortx_binding_create(SessionHandle session, out BindingHandle binding);
        [DllImport(Lib)] internal static extern void ortx_binding_destroy(IntPtr binding);
        [DllImport(Lib)] internal static extern IntPtr ortx_binding_set_input(BindingHandle binding, UIntPtr index, ValueHandle value);
        [DllImport(Lib)] internal static extern IntPtr ortx_binding_set_output(BindingHandle binding, UIntPtr index, IntPtr tensor);
        [DllImport(Lib)] internal static extern IntPtr ortx_binding_run(BindingHandle binding, ref RunOptions options);
        [DllImport(Lib)] internal static extern IntPtr ortx_binding_output(BindingHandle binding, UIntPtr index, out ValueHandle value);

        /// <summary>Throws unless the status is success; frees it.</summary>
        internal static void Check(IntPtr status)
        {
            if (status == IntPtr.Zero) return;
            try
            {
                var contexts = new List<string>();
                var count = (int)ortx_status_context_count(status);
                for (int i = 0; i < count; i++) contexts.Add(Text(ortx_status_context(status, (UIntPtr)i)));
                throw new OrtxException(ortx_status_code(status), Text(ortx_status_text(status)),
                    Text(ortx_status_message(status)), contexts);
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
        /// <summary>Text for C; null stays null.</summary>
        internal static byte[] Bytes(string s)
        {
            return s == null ? null : Encoding.UTF8.GetBytes(s + "\0");
        }
        internal static UIntPtr Size(long n)
        {
            return (UIntPtr)(ulong)n;
        }

        // Kept for as long as the library may call it.
        internal static readonly Release Free = user => GCHandle.FromIntPtr(user).Free();
    }

    /// <summary>Handles whose numbers go into C structures and arrays, held until Dispose.</summary>
    internal sealed class Held : IDisposable
    {
        private readonly List<SafeHandle> handles = new List<SafeHandle>();
        internal IntPtr Add(SafeHandle h)
        {
            if (h == null) return IntPtr.Zero;
            bool added = false;
            h.DangerousAddRef(ref added);
            handles.Add(h);
            return h.DangerousGetHandle();
        }
        public void Dispose()
        {
            foreach (var h in handles) h.DangerousRelease();
        }
    }

    internal abstract class Handle : SafeHandle
    {
        protected Handle() : base(IntPtr.Zero, true) { }
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
    }
    internal sealed class EnvironmentHandle : Handle
    {
        protected override bool ReleaseHandle() { Native.ortx_environment_destroy(handle); return true; }
    }
    internal sealed class SessionHandle : Handle
    {
        protected override bool ReleaseHandle() { Native.ortx_session_destroy(handle); return true; }
    }
    internal sealed class BindingHandle : Handle
    {
        protected override bool ReleaseHandle() { Native.ortx_binding_destroy(handle); return true; }
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
}
