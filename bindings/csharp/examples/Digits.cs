// Classifies handwritten digits from C#: Digits MODEL.onnx DIGITS.bin
using System;
using System.IO;
using System.Threading;
using Ortx;

internal static class Digits
{
    private static int Main(string[] args)
    {
        if (args.Length != 2)
        {
            Console.Error.WriteLine("usage: Digits MODEL.onnx DIGITS.bin");
            return 2;
        }
        try
        {
            Classify(args[0], args[1]);
            return 0;
        }
        catch (Exception e)
        {
            Console.Error.WriteLine("error: " + e);
            return 1;
        }
    }

    /// <summary>scripts/train_digits.py tells the file's layout.</summary>
    private static void Read(string path, out long height, out long width, out int[] labels, out float[] pixels)
    {
        using (var file = new BinaryReader(File.OpenRead(path)))
        {
            if (System.Text.Encoding.ASCII.GetString(file.ReadBytes(8)) != "DIGITS01") throw new IOException(path + " is not a digits file");
            int count = file.ReadInt32();
            height = file.ReadInt32();
            width = file.ReadInt32();
            float levels = file.ReadInt32();
            int size = (int)(height * width);
            labels = new int[count];
            pixels = new float[count * size];
            for (int i = 0; i < count; i++)
            {
                labels[i] = file.ReadByte();
                for (int k = 0; k < size; k++) pixels[i * size + k] = file.ReadByte() / levels;
            }
        }
    }

    private static void Classify(string model, string digits)
    {
        long height, width;
        int[] labels;
        float[] pixels;
        Read(digits, out height, out width, out labels, out pixels);
        var counts = new int[2];
        using (var session = new Session(model))
        {
            // One session, two threads.
            var threads = new Thread[counts.Length];
            for (int t = 0; t < threads.Length; t++)
            {
                int slot = t;
                threads[t] = new Thread(() => counts[slot] = Right(session, pixels, labels, height, width));
                threads[t].Start();
            }
            foreach (var t in threads) t.Join();
        }
        int right = counts[0];
        Console.WriteLine("ortx {0} from C#: {1} of {2} held-out digits right: {3:F1} %", Library.Version, right, labels.Length, 100.0 * right / labels.Length);
        if (counts[0] != counts[1]) throw new Exception("two threads differ");
        if (right < 0.98 * labels.Length) throw new Exception("that is less than 98 %");
    }

    private static int Right(Session session, float[] pixels, int[] labels, long height, long width)
    {
        float[] probabilities;
        // The array itself, without a copy.
        using (var images = Tensor.Borrow(pixels, labels.Length, 1, height, width))
        using (var answers = (Tensor)session.Run(images)[0])
            probabilities = answers.ToArray<float>();
        int right = 0;
        for (int i = 0; i < labels.Length; i++)
        {
            int best = 0;
            for (int c = 1; c < 10; c++)
                if (probabilities[i * 10 + c] > probabilities[i * 10 + best]) best = c;
            if (best == labels[i]) right++;
        }
        return right;
    }
}
