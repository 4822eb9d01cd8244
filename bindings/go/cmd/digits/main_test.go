package main

import "testing"

func TestDigits(t *testing.T) {
	if err := run("../../../../models/digits.onnx", "../../../../models/digits_test.bin"); err != nil {
		t.Fatal(err)
	}
	if err := run("../../../../models/README.md", "../../../../models/digits_test.bin"); err == nil {
		t.Fatal("a text file was taken for a model")
	}
}
