//! The broker: sockets, replication, coordinators, the controller and the command line.
