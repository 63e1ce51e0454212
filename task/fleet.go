package task

import "time"

// Demand is the work that a run still has of one function: what whoever rents
// machines must know.
type Demand struct {
	Function string
	// Done: its status is final. Running: its tasks may start now; else it waits
	// for what it needs.
	Done, Running bool
	// Left is its tasks without a final status; 0 until their number is known.
	Left int
	// Ready of them may be handed out now, InHand were handed out.
	Ready, InHand int
	// Ended is how many have run to an end.
	Ended int
	// Larger of both ask for more memory than they were given at first.
	Larger int
	// Mean is the seconds of a recent task; negative until one has ended.
	Mean float64
}

// Machine is a machine that worked for a run, as the run records it: when it
// joined, and once more when it ended or left.
type Machine struct {
	ID    string  `json:"id"`
	Kind  string  `json:"kind"`
	Type  string  `json:"type,omitempty"`
	Zone  string  `json:"zone,omitempty"`
	Spot  bool    `json:"spot,omitempty"`
	Price float64 `json:"price"` // dollars per hour
	// Slots is the tasks it runs at a time; 0 counts as 1.
	Slots int `json:"slots,omitempty"`
	// Joined is since when it is billed to the run: its launch, or when it was
	// invited.
	Joined time.Time `json:"joined"`
	// Ended is until when; zero: it still is. Why says why, for people.
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// leastBilled is the least time that a cloud bills a machine for.
const leastBilled = time.Minute

// Cost is what the machine costs the run until now, in dollars.
func (m *Machine) Cost(now time.Time) float64 {
	if !m.Ended.IsZero() && m.Ended.Before(now) {
		now = m.Ended
	}
	return max(now.Sub(m.Joined), leastBilled).Hours() * m.Price
}
