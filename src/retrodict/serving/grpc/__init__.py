"""The same decisions over gRPC: each call becomes the request over HTTP that it stands for, in the same process.

What HTTP checks, counts, records and refuses is then checked, counted, recorded and refused once, in one place; what is
here turns messages into requests and answers into messages. ``open_inference.proto`` and ``decisions.proto`` are for
callers to generate clients from; ``messages.binpb`` is what protoc makes of the two.
"""
