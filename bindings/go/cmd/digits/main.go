// Command digits classifies handwritten digits: digits MODEL.onnx DIGITS.bin
package main

import (
	"context"
	"fmt"
	"os"

	"ortx"
	"ortx/internal/digitset"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: digits MODEL.onnx DIGITS.bin")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(model, digits string) error {
	set, err := digitset.Read(digits)
	if err != nil {
		return err
	}
	session, err := ortx.Open(model, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	count := len(set.Labels)
	// The slice itself, without a copy.
	images, err := ortx.BorrowTensor([]int64{int64(count), 1, int64(set.Height), int64(set.Width)}, set.Pixels, false)
	if err != nil {
		return err
	}
	defer images.Close()
	outputs, err := session.Run(context.Background(), images)
	if err != nil {
		return err
	}
	defer outputs[0].Close()
	probabilities, err := ortx.Data[float32](outputs[0])
	if err != nil {
		return err
	}
	right := 0
	for i, label := range set.Labels {
		best := 0
		for c, p := range probabilities[i*10 : (i+1)*10] {
			if p > probabilities[i*10+best] {
				best = c
			}
		}
		if best == label {
			right++
		}
	}
	fmt.Printf("ortx %s from Go: %d of %d held-out digits right: %.1f %%\n", ortx.Version(), right, count, 100*float64(right)/float64(count))
	if float64(right) < 0.98*float64(count) {
		return fmt.Errorf("that is less than 98 %%")
	}
	return nil
}
