mod encodings;
mod lifecycle;
mod limits;
mod random;
mod reasons;
mod replacement;
