package chart

import (
	"math"
	"strings"
	"testing"
)

// TestStack: bars stand on each other and inside the frame, and are as high as what they say.
func TestStack(t *testing.T) {
	t.Parallel()
	c := Stack([]string{"a", "b"}, Series{Name: "x", Class: "x", Values: []float64{3, 0}}, Series{Name: "y", Class: "y", Values: []float64{1, 8}})
	if len(c.Bars) != 3 || c.Empty {
		t.Fatalf("%+v", c)
	}
	x, y, other := c.Bars[0], c.Bars[1], c.Bars[2]
	if math.Abs(x.Y+x.Height-c.Base) > 0.11 || math.Abs(y.Y+y.Height-x.Y) > 0.11 || math.Abs(x.Height-3*y.Height) > 0.31 || math.Abs(other.Height-8*y.Height) > 0.81 {
		t.Errorf("%+v", c.Bars)
	}
	for _, b := range c.Bars {
		if b.Y < 0 || b.X < c.Left || b.X+b.Width > c.Right {
			t.Errorf("%+v is outside", b)
		}
	}
}

// TestDraw: where nothing is known the line is broken, and a value alone is a dot.
func TestDraw(t *testing.T) {
	t.Parallel()
	c := Draw([]string{"a", "b", "c", "d"}, Series{Values: []float64{1, math.NaN(), 2, 3}})
	if p := c.Lines[0].Path; strings.Count(p, "M") != 2 || strings.Count(p, "L") != 1 || strings.Contains(p, "NaN") {
		t.Error(p)
	}
	for _, values := range [][]float64{{0, 0}, {math.NaN(), math.NaN()}} {
		if c := Draw([]string{"a", "b"}, Series{Values: values}); !c.Empty || len(c.Ticks) < 2 {
			t.Errorf("%v: %+v", values, c)
		}
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	for _, highest := range []float64{1e-9, 0.003, 0.7, 1, 3, 9.99, 10, 11, 99, 12345, 1e12} {
		step, n := steps(highest)
		if top := step * float64(n); top < highest*(1-1e-9) || top > highest*3 || n < 2 || n > 5 {
			t.Errorf("%v: %d steps of %v", highest, n, step)
		}
	}
}
