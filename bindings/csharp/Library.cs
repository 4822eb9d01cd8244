// ortx for .NET: the C library libortx behind SafeHandles and exceptions. C# 7 on .NET Standard 2.0, .NET Core or Mono.
using System;
using System.Collections.Generic;

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
        Complex64, Complex128, BFloat16, Float8E4M3FN, Float8E4M3FNUZ, Float8E5M2, Float8E5M2FNUZ, UInt4, Int4, Float4E2M1,
        Float8E8M0, UInt2, Int2, Float6E2M3, Float6E3M2
    }

    /// <summary>What kind of thing a value is.</summary>
    public enum Kind { Unknown = 0, Tensor, Sequence, Optional, Map }

    /// <summary>A level of processor instructions.</summary>
    public enum Isa { Default = 0, Scalar, Avx2, Avx512 }

    /// <summary>What kind of processor a device is.</summary>
    public enum DeviceType { Cpu = 1, Gpu, Accelerator }

    /// <summary>How a model file comes into memory; see ORTX_LOAD_MAP and ORTX_LOAD_READ in ortx.h.</summary>
    public enum Load { Map = 0, Read }

    /// <summary>A text of a model's metadata.</summary>
    public enum ModelText { ProducerName = 1, ProducerVersion, GraphName, Domain, Doc }

    /// <summary>A call that failed. Its message is one line: the places that the error passed, and what went wrong.</summary>
    public sealed class OrtxException : Exception
    {
        /// <summary>What went wrong.</summary>
        public Code Code { get; }
        /// <summary>The same as text, without the places.</summary>
        public string Detail { get; }
        /// <summary>The places that the error passed, outermost first.</summary>
        public IReadOnlyList<string> Contexts { get; }

        internal OrtxException(Code code, string text, string detail, IReadOnlyList<string> contexts) : base(text)
        {
            Code = code;
            Detail = detail;
            Contexts = contexts;
        }
    }

    /// <summary>The library.</summary>
    public static class Library
    {
        /// <summary>Its version, such as "0.1.0".</summary>
        public static string Version { get { return Native.Text(Native.ortx_version()); } }
        /// <summary>The threads that a session uses unless told otherwise.</summary>
        public static int ThreadsAvailable { get { return Native.ortx_threads_available(); } }
        /// <summary>The level of instructions that a session uses unless told otherwise.</summary>
        public static Isa IsaAvailable { get { return Native.ortx_isa_available(); } }

        /// <summary>ortx's name of a level of instructions.</summary>
        public static string NameOf(Isa isa) { return Native.Text(Native.ortx_isa_name(isa)); }
        /// <summary>ONNX's name of an element type.</summary>
        public static string NameOf(DType dtype) { return Native.Text(Native.ortx_dtype_name(dtype)); }
        /// <summary>ortx's name of an error code.</summary>
        public static string NameOf(Code code) { return Native.Text(Native.ortx_code_name(code)); }
        /// <summary>How many bits an element takes in a tensor's memory; 0 for strings.</summary>
        public static int BitsOf(DType dtype) { return Native.ortx_dtype_bits(dtype); }

        internal static void CheckAbi()
        {
            uint have = Native.ortx_abi_version();
            if (have != Native.AbiVersion)
                throw new NotSupportedException("libortx has ABI version " + have + ", this needs " + Native.AbiVersion);
        }
    }

    /// <summary>A device that sessions can use beside the processor itself.</summary>
    public sealed class Device
    {
        /// <summary>The name that session options take.</summary>
        public string Name { get; internal set; }
        /// <summary>Model, kind, size, driver.</summary>
        public string Description { get; internal set; }
        /// <summary>What kind of processor it is.</summary>
        public DeviceType Type { get; internal set; }
        /// <summary>Its memory in bytes.</summary>
        public ulong Memory { get; internal set; }
    }

    /// <summary>What sessions share: operators known, devices found.</summary>
    public sealed class OrtxEnvironment : IDisposable
    {
        internal readonly EnvironmentHandle Handle;
        /// <summary>An environment of its own.</summary>
        public OrtxEnvironment()
        {
            Library.CheckAbi();
            Native.Check(Native.ortx_environment_create(out Handle));
        }
        /// <summary>The devices there are; none where the machine has no OpenCL.</summary>
        public IReadOnlyList<Device> Devices
        {
            get
            {
                UIntPtr count;
                Native.Check(Native.ortx_environment_device_count(Handle, out count));
                var list = new List<Device>();
                for (uint i = 0; i < (uint)count; i++)
                {
                    var index = (UIntPtr)i;
                    IntPtr name, description;
                    DeviceType type;
                    ulong memory;
                    Native.Check(Native.ortx_environment_device_name(Handle, index, out name));
                    Native.Check(Native.ortx_environment_device_description(Handle, index, out description));
                    Native.Check(Native.ortx_environment_device_type(Handle, index, out type));
                    Native.Check(Native.ortx_environment_device_memory(Handle, index, out memory));
                    list.Add(new Device { Name = Native.Text(name), Description = Native.Text(description), Type = type, Memory = memory });
                }
                GC.KeepAlive(this);
                return list;
            }
        }
        /// <summary>Ends the environment; sessions made with it go on.</summary>
        public void Dispose() { Handle.Dispose(); }
    }

    /// <summary>Stops runs from another thread. A System.Threading.CancellationToken in RunOptions does so too.</summary>
    public sealed class CancelToken : IDisposable
    {
        internal readonly CancelHandle Handle;
        /// <summary>A token for as many runs as wanted.</summary>
        public CancelToken() { Native.Check(Native.ortx_cancel_token_create(out Handle)); }
        /// <summary>Asks all runs that have the token to stop.</summary>
        public void Cancel() { Native.Check(Native.ortx_cancel_token_cancel(Handle)); }
        /// <summary>Makes a cancelled token usable again.</summary>
        public void Reset() { Native.Check(Native.ortx_cancel_token_reset(Handle)); }
        /// <summary>Whether it is cancelled.</summary>
        public bool IsCancelled
        {
            get
            {
                int cancelled;
                Native.Check(Native.ortx_cancel_token_is_cancelled(Handle, out cancelled));
                return cancelled != 0;
            }
        }
        /// <summary>Frees the token.</summary>
        public void Dispose() { Handle.Dispose(); }
    }
}
