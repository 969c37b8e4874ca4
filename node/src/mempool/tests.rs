mod encodings;
mod lifecycle;
mod limits;
mod news;
mod random;
mod reasons;
mod replacement;
