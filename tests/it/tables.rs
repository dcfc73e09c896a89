//! Tables and logins as they are found: what a start refuses and how it says so, and every type of column.
