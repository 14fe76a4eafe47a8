//! `libphantom.so`: hands a program sockets of its phantom namespace.
