// Package ipam decides which address a pod gets, and what to ask of EC2 so that
// there is always one to give.
//
//	EC2's and IMDS's listings --.
//	what our own calls did -----+-> Belief --> View --> Pool --> Entries --> State --> Plan --> []Change
//	                                                     ^
//	                                    Assign, Release -'
//
// The [Belief] says what ENIs the node has and what they have, from sources that
// lag and err; see there for its rules.
//
// The [Pool] holds every pod address of the ENIs. An address is in exactly one of
// five states:
//
//	         SetENIs                                      SetENIs, without it
//	            |            Withdraw                          ^
//	            v        .------------------> leaving ---------'
//	.------> free <------'     Readmit
//	|           |
//	|           |    Assign               Release
//	|           '-----------> assigned ---------> cooling ---.
//	|                             |                  ^       |
//	|                     Reserve |       Unreserve  |       |
//	|                             '----> reserved ---'       |
//	'--------------- the cool-down has passed ---------------'
//
// Invariants, across any sequence of calls: no address has two owners, no owner
// has two addresses, and an address that cools down, is reserved or leaves is never
// assigned, nor is one that is disputed to anybody new. An address that vanishes
// from the ENIs while it is held, rests or is reserved is remembered in that state,
// so that its return cannot hand it out early.
//
// [Plan] is what to ask of EC2 now: a function of what is believed of the ENIs, of
// the pool, of what is under way and of what was refused lately. One [Change] is
// one call, so that a crash between two calls is mended by planning again. It never
// gives back what is not free, and what it gives back it does not ask for again.
//
// The package is pure: time is passed in, and every time of one Pool, Belief or
// State must come from one clock. A Pool and a Belief belong to one goroutine each;
// the functions are safe for concurrent use.
package ipam
