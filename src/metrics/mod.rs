//! Counting: cheap instruments that lower layers fill, and the page that shows them. It decides nothing.

pub mod histogram;
pub mod names;
pub mod page;
pub mod process;
