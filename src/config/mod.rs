//! The configuration: the files that it lies in, and the settings that they make together.

pub mod fragments;
pub mod load;
pub mod parse;
pub mod settings;
