// Package chart draws charts as SVG that needs no script: its main type is Chart, which says where everything stands. A
// template writes it down, and the same numbers as a table for those who do not see it.
package chart

import (
	"math"
	"strconv"
)

// The size of a chart in its own units, and the margins around what is drawn.
const (
	Width  = 640
	Height = 200
	left   = 68
	right  = 8
	top    = 8
	bottom = 24
)

// Series is a row of values, one for each label.
type Series struct {
	Name   string // for the legend
	Class  string // of the style sheet, which has the colours
	Values []float64
}

// Chart says where everything stands.
type Chart struct {
	Width, Height int
	Left, Right   float64
	Base          float64 // where zero is
	Bars          []Bar
	Lines         []Line
	Ticks         []Tick
	Marks         []Mark
	Labels        []string
	Series        []Series
	Empty         bool // every value is zero
}

// Bar is a part of a stack.
type Bar struct {
	X, Y, Width, Height float64
	Class               string
}

// Line is a series as the points of a polyline; where nothing is known, the value is NaN, and there is a gap.
type Line struct {
	Path  string
	Class string
}

// Tick is a line across, with its value.
type Tick struct {
	Y, Value float64
}

// Mark is a label below.
type Mark struct {
	X      float64
	Text   string
	Anchor string // start, middle or end
}

// Stack draws bars of series upon each other.
func Stack(labels []string, series ...Series) *Chart {
	totals := make([]float64, len(labels))
	for _, s := range series {
		for i, v := range s.Values {
			totals[i] += v
		}
	}
	c, scale := frame(labels, series, totals)
	step := c.step()
	for i := range labels {
		y := c.Base
		for _, s := range series {
			h := s.Values[i] * scale
			if h <= 0 {
				continue
			}
			y -= h
			c.Bars = append(c.Bars, Bar{X: round(c.Left + float64(i)*step + step*0.12), Y: round(y), Width: round(step * 0.76), Height: round(h), Class: s.Class})
		}
	}
	return c
}

// Draw draws each series as a line.
func Draw(labels []string, series ...Series) *Chart {
	var all []float64
	for _, s := range series {
		all = append(all, s.Values...)
	}
	c, scale := frame(labels, series, all)
	step := c.step()
	for _, s := range series {
		var path []byte
		pen := byte('M')
		for i, v := range s.Values {
			if math.IsNaN(v) {
				pen = 'M'
				continue
			}
			path = append(path, pen)
			path = appendNumber(path, c.Left+(float64(i)+0.5)*step)
			path = append(path, ' ')
			path = appendNumber(path, c.Base-v*scale)
			if pen == 'M' { // a value between two gaps is a dot
				path = append(path, "h3"...)
			}
			pen = 'L'
		}
		c.Lines = append(c.Lines, Line{Path: string(path), Class: s.Class})
	}
	return c
}

// frame is a chart with its axes; scale is how high a unit is.
func frame(labels []string, series []Series, values []float64) (c *Chart, scale float64) {
	c = &Chart{Width: Width, Height: Height, Left: left, Right: Width - right, Base: Height - bottom, Labels: labels, Series: series, Empty: true}
	highest := 0.0
	for _, v := range values {
		if v > highest {
			highest, c.Empty = v, false
		}
	}
	step, n := steps(highest)
	scale = (c.Base - top) / (step * float64(n))
	for i := range n + 1 {
		v := float64(i) * step
		c.Ticks = append(c.Ticks, Tick{Y: round(c.Base - v*scale), Value: v})
	}
	const marks = 5
	every := max(1, (len(labels)-1+marks-1)/marks)
	for i := 0; i < len(labels); i += every {
		anchor := "middle"
		if i == 0 {
			anchor = "start"
		}
		c.Marks = append(c.Marks, Mark{X: round(c.Left + (float64(i)+0.5)*c.step()), Text: labels[i], Anchor: anchor})
	}
	return c, scale
}

func (c *Chart) step() float64 { return (c.Right - c.Left) / float64(max(1, len(c.Labels))) }

// steps divides 0 to highest by two to five steps of 1, 2 or 5 times a power of ten.
func steps(highest float64) (step float64, n int) {
	if highest <= 0 || math.IsInf(highest, 0) {
		return 1, 2
	}
	power := math.Pow(10, math.Floor(math.Log10(highest/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		step = m * power
		if highest/step <= 5 {
			break
		}
	}
	return step, max(2, int(math.Ceil(highest/step-1e-9)))
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

func appendNumber(b []byte, v float64) []byte { return strconv.AppendFloat(b, round(v), 'f', -1, 64) }
