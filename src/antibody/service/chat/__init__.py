"""Answers, by a process of their own, so that torch neither slows the server nor takes it down."""
