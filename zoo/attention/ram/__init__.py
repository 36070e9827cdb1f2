"""Recurrent models of visual attention (RAM), Mnih, Heess, Graves & Kavukcuoglu, 2014."""
