"""Our client, server and tracker against those of a real TVM; needs ``apache-tvm`` 0.27."""
