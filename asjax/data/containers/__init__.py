"""Read the structure of a sound file (frames, pages, chunks) without decoding it.

libsndfile trusts headers. It reads only the first of joined MP3 or Ogg files, guesses the length of
an MP3 without a Xing header, and reads a cut WAV without an error. So we walk through the structure
of a file first. The result is the list of sound files in it, its faults, and notes for the user.
"""
