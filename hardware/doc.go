// Package hardware chooses machines and prices them. It is pure: it gets a
// Catalogue (what a region has, from cloud/aws or the built-in table) and a
// Request (what a function asks for) and gives a ranked Selection with the
// reasons why others were left out; Rates add what a machine costs beside the
// instance. Nothing here speaks to a cloud or reads a clock.
package hardware
