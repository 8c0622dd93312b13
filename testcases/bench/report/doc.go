// Package report holds what a run of measurements found and shows it.
//
// A [Report] is the machine and a list of tables. A [Table] has one quantity, in
// one unit, of several subjects, its [Series], at several sizes, their Points. A
// [Point] keeps every sample: sample i of every series was taken in round i, in
// which all series had their turn. A ratio is therefore taken round by round, so
// that a machine that slows down during a run slows both sides of it, and then the
// median of these ratios is what is shown, with their quartiles.
//
// A report can be written as text ([Report.WriteText]), with a curve for every
// table of three sizes or more, if they are numbers; as JSON with the raw samples ([Report.WriteJSON]);
// and one table as a picture ([Table.WriteSVG]).
package report
