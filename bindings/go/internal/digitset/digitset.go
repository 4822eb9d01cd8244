// Package digitset reads the held-out digits; scripts/train_digits.py tells the file's layout.
package digitset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
)

// Set of pictures, all of one size.
type Set struct {
	Height, Width int
	Labels        []int
	// Pixels of all pictures in 0..1.
	Pixels []float32
}

// Read a file.
func Read(path string) (*Set, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(file) < 24 || !bytes.Equal(file[:8], []byte("DIGITS01")) {
		return nil, errors.New(path + " is not a digits file")
	}
	number := func(at int) int { return int(binary.LittleEndian.Uint32(file[at:])) }
	s := &Set{Height: number(12), Width: number(16)}
	size := 1 + s.Height*s.Width
	if len(file) != 24+number(8)*size {
		return nil, errors.New(path + " is damaged")
	}
	for i := 0; i < number(8); i++ {
		picture := file[24+i*size:][:size]
		s.Labels = append(s.Labels, int(picture[0]))
		for _, p := range picture[1:] {
			s.Pixels = append(s.Pixels, float32(p)/float32(number(20)))
		}
	}
	return s, nil
}
