package web

import (
	"fmt"
	"sort"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

// The sizes of a graph, in pixels.
const (
	nodeWidth, nodeHeight = 196, 62
	gapX, gapY            = 56, 18
	margin                = 6
	barWidth              = nodeWidth - 24
)

// graphPicture is a graph in layers, left to right, ready to be drawn.
type graphPicture struct {
	Width, Height int
	Nodes         []nodePicture
	Edges         []edgePicture
}

type nodePicture struct {
	X, Y int
	executor.FunctionReport
	Mapped bool
	Bar    []segment
}

type edgePicture struct {
	Path     string
	Streams  bool   // item by item
	From, To string // names
}

// segment is a part of a bar that shows how many tasks are in which state.
type segment struct {
	State string
	X, W  float64
	Count int
}

// segments is a bar of some width. What is there at all can be seen.
func segments(f executor.FunctionReport, width float64) []segment {
	parts := []segment{
		{State: "succeeded", Count: f.Succeeded - f.Cached}, {State: "cached", Count: f.Cached}, {State: "failed", Count: f.Failed},
		{State: "skipped", Count: f.Skipped}, {State: "cancelled", Count: f.Cancelled}, {State: "running", Count: f.Running},
	}
	total := f.Tasks
	if total == 0 {
		return nil
	}
	const least = 2
	x := 0.0
	var list []segment
	for _, p := range parts {
		if p.Count <= 0 {
			continue
		}
		p.X, p.W = x, max(least, width*float64(p.Count)/float64(total))
		x += p.W
		list = append(list, p)
	}
	if x > width { // the small ones took from nobody
		for i := range list {
			list[i].X, list[i].W = list[i].X*width/x, list[i].W*width/x
		}
	}
	return list
}

// layout puts functions into layers: each right of all that it needs, and in
// a layer near to what it needs.
func layout(graph []graphNode, reports []executor.FunctionReport) graphPicture {
	byName := map[string]int{}
	for i, n := range graph {
		byName[n.Name] = i
	}
	layer := make([]int, len(graph))
	// Needs never form a cycle, and may stand in any order.
	for changed := true; changed; {
		changed = false
		for i, n := range graph {
			for _, need := range n.Needs {
				if j, ok := byName[need]; ok && layer[i] <= layer[j] && layer[j] < len(graph) {
					layer[i], changed = layer[j]+1, true
				}
			}
		}
	}
	var layers [][]int
	for i := range graph {
		for len(layers) <= layer[i] {
			layers = append(layers, nil)
		}
		layers[layer[i]] = append(layers[layer[i]], i)
	}
	row := make([]float64, len(graph))
	rank := func(l []int) {
		for k, i := range l {
			row[i] = float64(k) - float64(len(l)-1)/2
		}
	}
	for _, l := range layers {
		rank(l)
	}
	for range 4 {
		for _, l := range layers[min(1, len(layers)):] {
			sortByNeighbours(l, row, func(i int) (list []int) {
				for _, need := range graph[i].Needs {
					if j, ok := byName[need]; ok {
						list = append(list, j)
					}
				}
				return list
			})
			rank(l)
		}
		for k := len(layers) - 2; k >= 0; k-- {
			sortByNeighbours(layers[k], row, func(i int) (list []int) {
				for j := range graph {
					for _, need := range graph[j].Needs {
						if need == graph[i].Name {
							list = append(list, j)
						}
					}
				}
				return list
			})
			rank(layers[k])
		}
	}
	tallest := 0
	for _, l := range layers {
		tallest = max(tallest, len(l))
	}
	p := graphPicture{Width: 2*margin + len(layers)*nodeWidth + max(0, len(layers)-1)*gapX,
		Height: 2*margin + tallest*nodeHeight + max(0, tallest-1)*gapY}
	at := func(i int) (x, y int) {
		mid := float64(p.Height) / 2
		return margin + layer[i]*(nodeWidth+gapX), int(mid + row[i]*(nodeHeight+gapY) - nodeHeight/2)
	}
	byReport := map[string]executor.FunctionReport{}
	for _, f := range reports {
		byReport[f.Name] = f
	}
	for i, n := range graph {
		x, y := at(i)
		f := byReport[n.Name]
		f.Name = n.Name
		p.Nodes = append(p.Nodes, nodePicture{X: x, Y: y, FunctionReport: f, Mapped: n.Mapped, Bar: segments(f, barWidth)})
		for _, need := range n.Needs {
			j, ok := byName[need]
			if !ok {
				continue
			}
			x1, y1 := at(j)
			x1, y1 = x1+nodeWidth, y1+nodeHeight/2
			x2, y2 := x, y+nodeHeight/2
			bend := gapX / 2
			p.Edges = append(p.Edges, edgePicture{From: need, To: n.Name, Streams: n.Streams == need,
				Path: fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2)})
		}
	}
	return p
}

// sortByNeighbours orders a layer by where its neighbours are on average.
func sortByNeighbours(l []int, row []float64, neighbours func(int) []int) {
	weight := map[int]float64{}
	for _, i := range l {
		weight[i] = row[i]
		if near := neighbours(i); len(near) > 0 {
			sum := 0.0
			for _, j := range near {
				sum += row[j]
			}
			weight[i] = sum / float64(len(near))
		}
	}
	sort.SliceStable(l, func(a, b int) bool { return weight[l[a]] < weight[l[b]] })
}
