"""One file of an ECG in any format -> one `Ecg`. `read.py` recognises the format; there is a module per format."""
