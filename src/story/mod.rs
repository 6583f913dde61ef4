//! Floor 4, the story: the steps of a bootstrap in one function, and the journal that records them.

pub mod apply;
pub mod bootstrap;
pub mod join;
pub mod journal;
pub mod leave;
pub mod scene;
