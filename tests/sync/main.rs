//! The engine against a kernel in memory that refuses things, and in which others are at work.

mod counts;
mod histories;
mod missing_modules;
mod refusals;
mod world;
