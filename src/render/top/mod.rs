//! `netft top`: a live view of the routes. Pure: samples and keys in, a screen and orders out.

mod matrix;
mod model;
mod screen;
mod traffic;

pub use model::{TopKey, TopModel, TopOrder, TopSample};
pub use screen::draw_screen;
