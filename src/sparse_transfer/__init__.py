"""How well do sparse ImageNet networks transfer?"""
