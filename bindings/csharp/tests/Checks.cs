// What the binding promises, checked: Checks MODELS DIGITS.onnx. MODELS is the folder of small models that tests/it/hosts.rs
// writes.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using Ortx;

internal static class Checks
{
    private static string models, digits;

    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Checks MODELS DIGITS.onnx");
            return 2;
        }
        models = args[0];
        digits = args[1];
        var checks = new Action[] { Errors, Cancelling, Elements, Strings, Kinds, Types, Metadata, DefaultsAndMemory, Options, Pools, Memory, Bindings, Devices };
        foreach (var check in checks)
        {
            try
            {
                check();
            }
            catch (Exception e)
            {
                Console.Error.WriteLine(check.Method.Name + ": " + e);
                return 1;
            }
            // What was left open is closed by the finalizers, at any time.
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Console.WriteLine("C#: " + checks.Length + " checks");
        return 0;
    }

    private static string Path(string name) { return System.IO.Path.Combine(models, name); }

    private static void True(bool good, string what)
    {
        if (!good) throw new Exception("wrong: " + what);
    }
    private static void Same<T>(IEnumerable<T> got, params T[] want)
    {
        True(got.SequenceEqual(want), string.Join(" ", got) + " instead of " + string.Join(" ", want));
    }
    private static void Throws(Code code, string word, Action action)
    {
        try
        {
            action();
        }
        catch (OrtxException e)
        {
            if (e.Code != code || !e.Message.Contains(word)) throw new Exception("wanted " + code + " with '" + word + "', got " + e.Code + ": " + e.Message);
            return;
        }
        throw new Exception("no error where " + code + " was due");
    }
    private static void Throws<E>(Action action) where E : Exception
    {
        try
        {
            action();
        }
        catch (E)
        {
            return;
        }
        throw new Exception("no " + typeof(E).Name);
    }

    private static void Errors()
    {
        Throws(Code.NotFound, "no such file", () => new Session("no such file.onnx"));
        Throws(Code.InvalidModel, "text", () => new Session("models/README.md"));
        Throws(Code.InvalidModel, "graph", () => new Session(new byte[] { 8, 8 }));
        Throws(Code.InvalidArgument, "takes 12 bytes", () => Tensor.Borrow(new float[2], 3));
        Throws(Code.InvalidArgument, "takes 12 bytes", () => Tensor.Borrow(new float[2], false, 3));
        using (var session = new Session(File.ReadAllBytes(digits), new SessionOptions { Threads = 1 }))
        using (var good = Tensor.Copy(new float[64], 1, 1, 8, 8))
        using (var wrong = Tensor.Copy(new float[192], 1, 3, 8, 8))
        {
            Throws(Code.InvalidArgument, "'image'", () => session.Run(wrong));
            Throws(Code.InvalidArgument, "1 inputs", () => session.Run());
            Throws(Code.InvalidArgument, "NULL", () => session.Run((Tensor)null));
            Throws(Code.InvalidArgument, "image", () => session.InputIndex("picture"));
            Throws(Code.InvalidArgument, "probabilities", () => session.OutputIndex("answer"));
            try
            {
                session.Run(wrong);
            }
            catch (OrtxException e)
            {
                True(e.Message.EndsWith(e.Detail) && e.Contexts.All(c => e.Message.Contains(c)), "an error's parts: " + e.Message);
            }
            Throws<InvalidCastException>(() => good.ToArray<double>());
            Throws<ArgumentException>(() => good.Write(new float[3]));
            good.Dispose();
            Throws<ObjectDisposedException>(() => session.Run(good));
            session.Dispose();
            Throws<ObjectDisposedException>(() => session.Run(wrong));
        }
        True(Library.NameOf(Code.InvalidModel) == "invalid model", "a code's name");
    }

    private static void Cancelling()
    {
        using (var session = new Session(digits))
        using (var images = Tensor.Copy(new float[64], 1, 1, 8, 8))
        using (var cancel = new CancelToken())
        {
            Throws(Code.Cancelled, "time", () => session.Run(new RunOptions { Timeout = TimeSpan.FromTicks(1) }, images));
            var options = new RunOptions { Cancel = cancel };
            cancel.Cancel();
            True(cancel.IsCancelled, "cancelled");
            Throws(Code.Cancelled, "cancelled", () => session.Run(options, images));
            cancel.Reset();
            True(!cancel.IsCancelled, "reset");
            session.Run(options, images)[0].Dispose();
            using (var source = new CancellationTokenSource())
            {
                options = new RunOptions { CancellationToken = source.Token };
                session.Run(options, images)[0].Dispose();
                source.Cancel();
                Throws<OperationCanceledException>(() => session.Run(options, images));
            }
        }
    }

    private static void Elements()
    {
        using (var t = Tensor.Copy(new[] { true, false, true }, 3))
        {
            True(t.DType == DType.Bool, "bool");
            Same(t.ToArray<bool>(), true, false, true);
        }
        // 1.0 and -2.0 as float16.
        using (var t = Tensor.CopyBits(DType.Float16, new ushort[] { 0x3c00, 0xc000 }, 2))
            Same(t.ToBits<ushort>(), (ushort)0x3c00, (ushort)0xc000);
        using (var t = Tensor.CopyBits(DType.Int4, new byte[] { 0x21, 0x03 }, 3))
        {
            True(t.Count == 3 && Library.BitsOf(t.DType) == 4 && Library.NameOf(t.DType) == "int4", "int4");
            Same(t.ToBits<byte>(), (byte)0x21, (byte)0x03);
        }
        using (var t = Tensor.Zeros(DType.Int64, 2, 0))
        {
            Same(t.Shape, 2, 0);
            Same(t.ToArray<long>());
        }
        using (var t = Tensor.Zeros(DType.Float64))
        {
            t.Write(new[] { 2.5 });
            using (var same = (Tensor)t.Clone()) Same(same.ToArray<double>(), 2.5);
        }
        var array = new[] { 1, 2, 3 };
        using (var t = Tensor.Borrow(array, false, 3)) Throws(Code.InvalidArgument, "read-only", () => t.Write(new[] { 4, 5, 6 }));
        using (var t = Tensor.Borrow(array, 3)) t.Write(new[] { 4, 5, 6 });
        Same(array, 4, 5, 6);
    }

    private static void Strings()
    {
        var want = new[] { "one", "", "zwei \u00e4", "a\0b" };
        using (var t = Tensor.Strings(want, 2, 2))
        {
            Same(t.ToStrings(), want);
            Same(t.Shape, 2, 2);
        }
        using (var session = new Session(Path("strings.onnx")))
        using (var a = Tensor.Strings(new[] { "a", "ä" }, 2))
        using (var b = Tensor.Strings(new[] { "b", "" }, 2))
        using (var both = (Tensor)session.Run(a, b)[0])
            Same(both.ToStrings(), "ab", "ä");
    }

    private static void Kinds()
    {
        using (var one = Tensor.Copy(new float[] { 1 }, 1))
        using (var two = Tensor.Copy(new float[] { 2, 3 }, 2))
        using (var whole = Tensor.Copy(new long[] { 1 }, 1))
        using (var session = new Session(Path("sequence.onnx")))
        using (var sequence = Sequence.Of(one, two))
        {
            True(sequence.Count == 2 && sequence.Kind == Kind.Sequence, "a sequence");
            Same(sequence.Select(e => ((Tensor)e).Count), 1, 2);
            Throws(Code.InvalidArgument, "2", () => { var none = sequence[2]; });
            Throws(Code.InvalidArgument, "", () => Sequence.Of(one, whole));
            // The model appends its second input.
            using (var longer = (Sequence)session.Run(sequence, one)[0])
            {
                True(longer.Count == 3, "a longer sequence");
                using (var last = (Tensor)longer[2]) Same(last.ToArray<float>(), 1f);
            }
            Throws(Code.InvalidArgument, "'s'", () => session.Run(one, one));
        }
        using (var whole = Tensor.Copy(new long[] { 7 }, 1))
        using (var full = Optional.Of(whole))
        using (var empty = Optional.Of(null))
        {
            True(empty.Get() == null && empty.Kind == Kind.Optional, "an empty optional");
            using (var inside = (Tensor)full.Get()) Same(inside.ToArray<long>(), 7);
        }
        using (var keys = Tensor.Strings(new[] { "cat", "dog" }, 2))
        using (var values = Tensor.Copy(new float[] { 0.25f, 0.75f }, 2))
        using (var map = Map.Of(keys, values))
        {
            using (var k = map.Keys) Same(k.ToStrings(), "cat", "dog");
            using (var v = (Tensor)map.Values) Same(v.ToArray<float>(), 0.25f, 0.75f);
            Throws(Code.InvalidArgument, "", () => Map.Of(values, values));
        }
        // A tensor of probabilities becomes a sequence of maps.
        using (var session = new Session(Path("maps.onnx")))
        using (var p = Tensor.Copy(new float[] { 0.25f, 0.75f }, 1, 2))
        using (var maps = (Sequence)session.Run(p)[0])
        using (var map = (Map)maps[0])
        using (var keys = map.Keys)
        using (var values = (Tensor)map.Values)
        {
            Same(keys.ToStrings(), "cat", "dog");
            Same(values.ToArray<float>(), 0.25f, 0.75f);
        }
    }

    private static void Types()
    {
        using (var session = new Session(digits))
        {
            var image = session.Inputs.Single();
            True(image.Name == "image" && image.Type.Kind == Kind.Tensor && image.Type.DType == DType.Float32 && image.Type.Element == null, "an input");
            Same(image.Type.Shape, -1, 1, 8, 8);
            True(!string.IsNullOrEmpty(image.Type.Symbols[0]) && image.Type.Symbols[1] == null, "symbols");
        }
        using (var session = new Session(Path("sequence.onnx")))
        {
            var type = session.Inputs[0].Type;
            True(type.Kind == Kind.Sequence && type.Element.Kind == Kind.Tensor && type.Element.DType == DType.Float32, "a sequence's type");
        }
    }

    private static void Metadata()
    {
        using (var session = new Session(Path("strings.onnx"), new SessionOptions { Threads = 1, Isa = Isa.Scalar }))
        {
            True(session.Text(ModelText.ProducerName) == "tiny" && session.Text(ModelText.GraphName) == "strings", "texts");
            True(session.ModelVersion == 42 && session.IrVersion == 10 && session.Opsets[""] == 21, "versions");
            True(session.Properties["classes"] == "cat,dog" && session.Properties["empty"] == "", "properties");
            True(session.Threads == 1 && session.Isa == Isa.Scalar && Library.NameOf(session.Isa) == "scalar", "threads, level");
        }
        True(Library.ThreadsAvailable >= 1 && Library.IsaAvailable >= Isa.Scalar && Library.Version.Contains("."), "the library");
    }

    private static void DefaultsAndMemory()
    {
        using (var session = new Session(Path("defaults.onnx"), new SessionOptions { Threads = 1 }))
        using (var x = Tensor.Copy(new float[] { 1, 3 }, 2))
        using (var w = Tensor.Copy(new float[] { 5 }, 1))
        {
            True(session.Inputs.Single().Name == "x" && session.Overridable.Single().Name == "w", "an input, a default");
            True(session.InputIndex("w") == 1 && session.Overridable[0].Type.DType == DType.Float32, "the default's place and type");
            using (var y = (Tensor)session.Run(x)[0]) Same(y.ToArray<float>(), 2f, 6f);
            var named = session.Run(new Dictionary<string, Value> { { "x", x }, { "w", w } });
            using (var y = (Tensor)named["y"]) Same(y.ToArray<float>(), 5f, 15f);
            var used = session.MemoryUsed;
            True(session.MemoryPeak >= used && session.MemoryPeak > 0, "memory");
            session.Trim();
            True(session.MemoryUsed <= used, "trimmed");
        }
    }

    private static void Options()
    {
        Throws(Code.InvalidArgument, "colour", () => new Session(digits, new SessionOptions { Settings = { { "colour", "red" } } }));
        Throws(Code.InvalidArgument, "-1", () => new Session(digits, new SessionOptions { Threads = -1 }));
        Throws(Code.NotFound, "opencl:99", () => new Session(digits, new SessionOptions { Devices = { new DeviceChoice { Name = "opencl:99", Required = true } } }));
        using (var environment = new OrtxEnvironment())
        using (var input = Tensor.Copy(new float[64], 1, 1, 8, 8))
        {
            var options = new SessionOptions
            {
                Environment = environment, Threads = 2, SpinNs = -1, Load = Load.Read, KeepDenormals = true, DisableOptimization = true,
                Devices = { new DeviceChoice { Name = "opencl:99" } }, Settings = { { "disabled_passes", "" } }
            };
            float[] answer = null;
            foreach (var o in new[] { options, null })
                using (var session = new Session(digits, o))
                using (var output = (Tensor)session.Run(input)[0])
                {
                    True(session.Warnings.Count == (o == null ? 0 : 1) && session.Warnings.All(w => w.Contains("opencl:99")), "warnings");
                    var p = output.ToArray<float>();
                    if (answer != null) for (int i = 0; i < 10; i++) True(Math.Abs(p[i] - answer[i]) < 1e-5, "the same answer with other options");
                    answer = p;
                }
        }
    }

    private sealed class Threads : IThreadPool
    {
        internal long Done;
        public int Width { get { return 2; } }
        public void Parallel(long count, Action<long, long> task)
        {
            long next = -1;
            ThreadStart other = () => { for (long i; (i = Interlocked.Increment(ref next)) < count;) { task(1, i); Interlocked.Increment(ref Done); } };
            var thread = new Thread(other);
            thread.Start();
            for (long i; (i = Interlocked.Increment(ref next)) < count;) { task(0, i); Interlocked.Increment(ref Done); }
            thread.Join();
        }
    }

    private static void Pools()
    {
        var pool = new Threads();
        using (var session = new Session(digits, new SessionOptions { Pool = pool }))
        using (var input = Tensor.Copy(new float[256 * 64], 256, 1, 8, 8))
        {
            True(session.Threads == 2, "the pool's width");
            session.Run(input)[0].Dispose();
            True(pool.Done > 0, "the pool had work");
        }
        Throws(Code.NotFound, "no such", () => new Session("no such.onnx", new SessionOptions { Pool = pool }));
    }

    private static void Memory()
    {
        var bytes = File.ReadAllBytes(digits);
        using (var input = Tensor.Copy(new float[64], 1, 1, 8, 8))
        using (var copied = new Session(bytes))
        using (var borrowed = Session.Borrow(bytes))
        using (var a = (Tensor)copied.Run(input)[0])
        using (var b = (Tensor)borrowed.Run(input)[0])
            Same(a.ToArray<float>(), b.ToArray<float>());
        Throws(Code.InvalidModel, "", () => Session.Borrow(new byte[] { 1, 2, 3 }));
    }

    private static void Bindings()
    {
        using (var session = new Session(digits))
        using (var input = Tensor.Zeros(DType.Float32, 1, 1, 8, 8))
        using (var output = Tensor.Zeros(DType.Float32, 1, 10))
        using (var binding = new Binding(session))
        {
            Throws(Code.InvalidArgument, "", () => binding.Run());
            binding.SetInput(0, input);
            binding.SetOutput(0, output);
            binding.Run();
            var blank = output.ToArray<float>();
            input.Write(Enumerable.Range(0, 64).Select(i => i % 3 / 2f).ToArray());
            binding.Run(new RunOptions());
            var second = output.ToArray<float>();
            True(!blank.SequenceEqual(second), "an answer to another picture");
            using (var again = (Tensor)session.Run(input)[0]) Same(again.ToArray<float>(), second);
            using (var same = (Tensor)binding.Output(0)) Same(same.ToArray<float>(), second);
            binding.SetOutput(0, null);
            binding.Run();
            using (var own = (Tensor)binding.Output(0)) Same(own.ToArray<float>(), second);
            var options = new RunOptions { Timeout = TimeSpan.FromTicks(1) };
            Throws(Code.Cancelled, "time", () => binding.Run(options));
            Throws(Code.InvalidArgument, "7", () => binding.SetInput(7, input));
            Throws<ArgumentNullException>(() => binding.SetInput(0, null));
            // By name, and into tensors that are there.
            var named = session.Run(new Dictionary<string, Value> { { "image", input } }, new[] { "probabilities" });
            Same(((Tensor)named["probabilities"]).ToArray<float>(), second);
            session.RunInto(new Value[] { input }, new Value[] { output });
            Same(output.ToArray<float>(), second);
        }
    }

    private static void Devices()
    {
        using (var environment = new OrtxEnvironment())
        using (var input = Tensor.Copy(new float[64], 1, 1, 8, 8))
            foreach (var device in environment.Devices)
            {
                True(device.Memory > 0 && device.Type >= DeviceType.Cpu, device.Name);
                var options = new SessionOptions { Environment = environment, Devices = { new DeviceChoice { Name = device.Name } } };
                using (var session = new Session(digits, options))
                using (var output = (Tensor)session.Run(input)[0])
                    True(Math.Abs(output.ToArray<float>().Sum() - 1) < 1e-4, "probabilities from " + device.Description);
            }
    }
}
