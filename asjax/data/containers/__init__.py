"""What a sound file holds, by walking its frames, pages and chunks: nothing here decodes.

libsndfile trusts headers: of joined MP3 or Ogg files it reads the first, of an MP3 without a Xing
header it guesses the length, and of a cut WAV it reads what is left without a word. So the
structure of a file is walked first. The walk says which stretches are sound files of their own,
what is wrong with the file, and what a user should know.
"""
