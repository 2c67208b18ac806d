"""The tab of the Large Vision Model: a strip of pictures, and the next one."""
