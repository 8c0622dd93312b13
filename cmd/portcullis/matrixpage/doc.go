// Package matrixpage writes a matrix, or the difference of two, as one HTML page that works without anything else: it
// asks for nothing, and its Content-Security-Policy lets no script run but its own.
//
// What is known of the cluster is in a script element of type application/json, where no name can end the element
// (encoding/json escapes <, > and &). The script puts names on the page as text only.
//
// The table is drawn by need: only the cells that can be seen are elements. So a page of a thousand rows is as quick as
// one of ten.
package matrixpage
