// Package picture has the tests that look at `fairway path -o svg` as a reader's
// browser shows it: Debian's Chromium, without a window.
//
//	render.SVG --> file --> Chromium --+--> where each text and each box is
//	                                   +--> a screenshot with text, one without
//
// Chromium is driven by its DevTools protocol over a pipe, and has a network
// namespace of its own, without a device that is up. What cannot be told from
// boxes and pixels, whether one likes the picture, is for a person: with
// -pictures DIR the screenshots are kept.
package picture
