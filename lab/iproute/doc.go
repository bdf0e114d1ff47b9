// Package iproute is the part of ip(8) that people need to look at a network
// namespace and to change its rules, routes, addresses, links and neighbours by
// hand, for machines without iproute2. Command lines, output and JSON keys have
// iproute2's form, so that what people know, and what they find written, holds.
//
//	words --Parse--> Request --Do--> the kernel, in an open namespace
//	                    |                |
//	                    +------+---------+
//	                           v
//	               Answer.Text, Answer.JSON
//
// [Parse], the messages (message.go, decode.go) and the output (render*.go) are
// pure: data in, data out. [Do] is the edge. What people write is bounded in
// length; what the kernel says may be any bytes.
//
// Where it differs from iproute2: there is no space at the end of a line; a word
// that is given twice, or that is not known, is refused; names of tables are
// local, main and default, as no file is read; what it does not know of an object
// (tunnel encapsulation, say) is left out.
//
// Nothing here is concurrent. Do may be called from several goroutines.
package iproute
