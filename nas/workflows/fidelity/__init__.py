"""Can the proxy training rank candidates?"""
