// Tensors, sequences, optionals and maps.
using System;
using System.Collections;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Ortx
{
    /// <summary>A tensor, sequence, optional or map. Values that come from others share their memory.</summary>
    public abstract class Value : IDisposable
    {
        internal readonly ValueHandle Handle;
        internal Value(ValueHandle handle) { Handle = handle; }

        /// <summary>The object for a handle, by its kind; null for none.</summary>
        internal static Value Wrap(ValueHandle handle)
        {
            if (handle.IsInvalid) return null;
            Kind kind;
            Native.Check(Native.ortx_value_kind(handle, out kind));
            switch (kind)
            {
                case Kind.Tensor: return new Tensor(handle);
                case Kind.Sequence: return new Sequence(handle);
                case Kind.Optional: return new Optional(handle);
                case Kind.Map: return new Map(handle);
                default: throw new NotSupportedException("a value of kind " + (int)kind);
            }
        }
        internal static ValueHandle HandleOf(Value value)
        {
            return value == null ? null : value.Handle;
        }

        /// <summary>What it is.</summary>
        public Kind Kind
        {
            get
            {
                Kind kind;
                Native.Check(Native.ortx_value_kind(Handle, out kind));
                return kind;
            }
        }
        /// <summary>Another object for the same memory.</summary>
        public Value Clone()
        {
            ValueHandle copy;
            Native.Check(Native.ortx_value_clone(Handle, out copy));
            return Wrap(copy);
        }
        /// <summary>Frees the object; the memory goes with its last one.</summary>
        public void Dispose() { Handle.Dispose(); }
    }

    /// <summary>Elements of one type in an array of any rank, in the library's memory or over an array.</summary>
    public sealed class Tensor : Value
    {
        internal Tensor(ValueHandle handle) : base(handle) { }

        /// <summary>A tensor of zeros, or of empty strings.</summary>
        public static Tensor Zeros(DType dtype, params long[] shape)
        {
            ValueHandle tensor;
            Native.Check(Native.ortx_tensor_create(dtype, shape, Native.Size(shape.Length), out tensor));
            return new Tensor(tensor);
        }
        /// <summary>A tensor with a copy of an array.</summary>
        public static Tensor Copy<T>(T[] data, params long[] shape) where T : struct
        {
            return CopyBits(DTypeOf(typeof(T)), data, shape);
        }
        /// <summary>The same for element types that C# does not have: the array holds their bits, as ortx.h tells under
        /// ortx_dtype (ushort[] or byte[] for float16, byte[] for the types below 8 bits).</summary>
        public static Tensor CopyBits<T>(DType dtype, T[] data, params long[] shape) where T : struct
        {
            object array = data;
            if (data is bool[])
            {
                // Arrays of bool cannot be pinned.
                var bytes = new byte[data.Length];
                Buffer.BlockCopy(data, 0, bytes, 0, bytes.Length);
                array = bytes;
            }
            var pin = GCHandle.Alloc(array, GCHandleType.Pinned);
            try
            {
                ValueHandle tensor;
                Native.Check(Native.ortx_tensor_create_from_copy(dtype, shape, Native.Size(shape.Length),
                    pin.AddrOfPinnedObject(), Native.Size(Buffer.ByteLength(data)), out tensor));
                return new Tensor(tensor);
            }
            finally
            {
                pin.Free();
            }
        }
        /// <summary>A tensor over an array, not copied, that runs may write to where it is an output: it is pinned until the
        /// last value that shares it is gone.</summary>
        public static Tensor Borrow<T>(T[] data, params long[] shape) where T : struct
        {
            return Borrow(data, true, shape);
        }
        /// <summary>The same; where it is not writable, it cannot be an output.</summary>
        public static Tensor Borrow<T>(T[] data, bool writable, params long[] shape) where T : struct
        {
            var dtype = DTypeOf(typeof(T));
            if (dtype == DType.Bool) throw new NotSupportedException("arrays of bool cannot be pinned: use Copy");
            var pin = GCHandle.Alloc(data, GCHandleType.Pinned);
            var address = pin.AddrOfPinnedObject();
            var user = GCHandle.ToIntPtr(pin);
            var size = Native.Size(Buffer.ByteLength(data));
            ValueHandle tensor;
            // The library releases the array also where the call fails.
            Native.Check(writable
                ? Native.ortx_tensor_create_borrowed_mut(dtype, shape, Native.Size(shape.Length), address, size, Native.Free, user, out tensor)
                : Native.ortx_tensor_create_borrowed(dtype, shape, Native.Size(shape.Length), address, size, Native.Free, user, out tensor));
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
            Expect(typeof(T));
            return ToBits<T>();
        }
        /// <summary>A copy of the elements' bits, whatever their type.</summary>
        public T[] ToBits<T>() where T : struct
        {
            UIntPtr size;
            IntPtr data;
            Native.Check(Native.ortx_tensor_byte_size(Handle, out size));
            Native.Check(Native.ortx_tensor_data(Handle, out data));
            var bytes = new byte[checked((int)size)];
            if (bytes.Length > 0) Marshal.Copy(data, bytes, 0, bytes.Length);
            GC.KeepAlive(this);
            int width = Buffer.ByteLength(new T[1]);
            if (bytes.Length % width != 0) throw new InvalidCastException(bytes.Length + " bytes are no whole number of " + typeof(T).Name);
            var result = new T[bytes.Length / width];
            Buffer.BlockCopy(bytes, 0, result, 0, bytes.Length);
            return result;
        }
        /// <summary>Writes all elements. What is written is seen by all values that share the memory.</summary>
        public void Write<T>(T[] elements) where T : struct
        {
            Expect(typeof(T));
            if (elements.Length != Count) throw new ArgumentException(elements.Length + " elements for a tensor of " + Count);
            var bytes = new byte[Buffer.ByteLength(elements)];
            Buffer.BlockCopy(elements, 0, bytes, 0, bytes.Length);
            IntPtr data;
            Native.Check(Native.ortx_tensor_data_mut(Handle, out data));
            if (bytes.Length > 0) Marshal.Copy(bytes, 0, data, bytes.Length);
            GC.KeepAlive(this);
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

        private void Expect(Type t)
        {
            if (DTypeOf(t) != DType) throw new InvalidCastException("the tensor is " + Library.NameOf(DType) + ", not " + t.Name);
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
            if (t == typeof(bool)) return DType.Bool;
            throw new NotSupportedException("tensors hold no " + t.Name + ": see CopyBits");
        }
    }

    /// <summary>A list of values of one type. Each element that it gives is an object of its own, to be disposed.</summary>
    public sealed class Sequence : Value, IReadOnlyList<Value>
    {
        internal Sequence(ValueHandle handle) : base(handle) { }

        /// <summary>A sequence of values, which stay the caller's and share their memory.</summary>
        public static Sequence Of(params Value[] elements)
        {
            using (var held = new Held())
            {
                var handles = new IntPtr[elements.Length];
                for (int i = 0; i < handles.Length; i++) handles[i] = held.Add(HandleOf(elements[i]));
                ValueHandle sequence;
                Native.Check(Native.ortx_sequence_create(handles, Native.Size(handles.Length), out sequence));
                return new Sequence(sequence);
            }
        }
        /// <summary>How many elements there are.</summary>
        public int Count
        {
            get
            {
                UIntPtr n;
                Native.Check(Native.ortx_sequence_count(Handle, out n));
                return checked((int)n);
            }
        }
        /// <summary>An element.</summary>
        public Value this[int index]
        {
            get
            {
                ValueHandle element;
                Native.Check(Native.ortx_sequence_get(Handle, Native.Size(index), out element));
                return Wrap(element);
            }
        }
        /// <summary>The elements in order.</summary>
        public IEnumerator<Value> GetEnumerator()
        {
            for (int i = 0; i < Count; i++) yield return this[i];
        }
        IEnumerator IEnumerable.GetEnumerator() { return GetEnumerator(); }
    }

    /// <summary>A value that may be missing.</summary>
    public sealed class Optional : Value
    {
        internal Optional(ValueHandle handle) : base(handle) { }

        /// <summary>An optional; an empty one for null.</summary>
        public static Optional Of(Value element)
        {
            using (var held = new Held())
            {
                ValueHandle optional;
                Native.Check(Native.ortx_optional_create(held.Add(HandleOf(element)), out optional));
                return new Optional(optional);
            }
        }
        /// <summary>What it holds; null where it is empty.</summary>
        public Value Get()
        {
            ValueHandle element;
            Native.Check(Native.ortx_optional_get(Handle, out element));
            return Wrap(element);
        }
    }

    /// <summary>Integer or string keys, each with a value.</summary>
    public sealed class Map : Value
    {
        internal Map(ValueHandle handle) : base(handle) { }

        /// <summary>A map of a tensor of keys to a tensor or sequence with an entry a key, in the same order.</summary>
        public static Map Of(Tensor keys, Value values)
        {
            if (keys == null || values == null) throw new ArgumentNullException(keys == null ? "keys" : "values");
            ValueHandle map;
            Native.Check(Native.ortx_map_create(keys.Handle, values.Handle, out map));
            return new Map(map);
        }
        /// <summary>The keys.</summary>
        public Tensor Keys
        {
            get
            {
                ValueHandle keys;
                Native.Check(Native.ortx_map_keys(Handle, out keys));
                return new Tensor(keys);
            }
        }
        /// <summary>The values, in the keys' order.</summary>
        public Value Values
        {
            get
            {
                ValueHandle values;
                Native.Check(Native.ortx_map_values(Handle, out values));
                return Wrap(values);
            }
        }
    }
}
