mod encodings;
mod lifecycle;
mod limits;
mod news;
mod packages;
mod random;
mod reasons;
mod replacement;
