//! `callback-edge check` against callbacks on servers and frameworks that its authors do not
//! control. What is true of each is measured on the wire, independently of the program.

pub(crate) mod servers;
